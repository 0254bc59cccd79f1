"""`ioxide.Path` against pathlib.Path: the same names, results and exceptions, on both loops."""

from __future__ import annotations

import inspect
import os
import pathlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ioxide

Run = Callable[..., Any]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "file").write_text("content\n")
    (tmp_path / "folder" / "one.txt").write_text("1")
    (tmp_path / "folder" / "inner" / "two.txt").write_text("22")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "broken").symlink_to("nowhere")
    return tmp_path


def outcome_of(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except (OSError, ValueError) as error:
        return type(error), str(error)


LOOKS = [
    "stat",
    "lstat",
    "exists",
    "is_file",
    "is_dir",
    "is_symlink",
    "is_fifo",
    "is_socket",
    "is_block_device",
    "is_char_device",
    "is_mount",
    "readlink",
    "resolve",
    "owner",
    "read_bytes",
    "read_text",
]


@pytest.mark.parametrize("name", ["file", "folder", "link", "broken", "missing", "file/below"])
def test_what_looks_tells_what_pathlib_tells(run: Run, tree: Path, name: str) -> None:
    async def main() -> dict[str, Any]:
        seen = {}
        for look in LOOKS:
            try:
                seen[look] = await getattr(ioxide.Path(tree, name), look)()
            except OSError as error:
                seen[look] = type(error), str(error)
        return seen

    seen = run(main())
    for look in LOOKS:
        expected = outcome_of(getattr(tree / name, look))
        actual = seen[look]
        if isinstance(expected, os.stat_result):
            assert actual[:7] == expected[:7]  # the last access may differ
        elif isinstance(expected, pathlib.Path):
            assert (type(actual), str(actual)) == (ioxide.Path, str(expected))
        else:
            assert actual == expected, look


@pytest.mark.skipif(sys.version_info < (3, 13), reason="pathlib's from_uri is of 3.13")
def test_from_uri() -> None:
    path = ioxide.Path.from_uri("file:///a%20folder/file")
    assert (type(path), str(path)) == (ioxide.Path, "/a folder/file")
    with pytest.raises(ValueError) as theirs:
        pathlib.Path.from_uri("http://host/file")
    with pytest.raises(ValueError) as ours:
        ioxide.Path.from_uri("http://host/file")
    assert str(ours.value) == str(theirs.value)


def test_what_asks_the_disk_is_a_coroutine_function() -> None:
    for name in [*LOOKS, "mkdir", "unlink", "rename", "touch", "write_text", "copy", "move"]:
        assert inspect.iscoroutinefunction(getattr(ioxide.Path, name)), name


def test_what_yields(run: Run, tree: Path) -> None:
    async def main() -> list[list[str]]:
        path = ioxide.Path(tree)
        return [
            sorted([str(found) async for found in path.iterdir()]),
            sorted([str(found) async for found in path.glob("*")]),
            sorted([str(found) async for found in path.rglob("*.txt")]),
            sorted([str(directory / name) async for directory, _, names in path.walk() for name in names]),
        ]

    walked = [os.path.join(directory, name) for directory, _, names in os.walk(tree) for name in names]
    expected = [list(tree.iterdir()), list(tree.glob("*")), list(tree.rglob("*.txt")), walked]
    assert run(main()) == [sorted(map(str, found)) for found in expected]


def test_a_directory_that_is_missing_fails_when_it_is_iterated(run: Run, tree: Path) -> None:
    async def main() -> None:
        with pytest.raises(FileNotFoundError):
            async for _ in ioxide.Path(tree, "missing").iterdir():
                pass

    run(main())


def test_what_changes(run: Run, tree: Path) -> None:
    async def main() -> list[Any]:
        path = ioxide.Path(tree)
        await (path / "new").mkdir()
        await (path / "new" / "touched").touch()
        renamed = await (path / "new" / "touched").rename(path / "new" / "renamed")
        copied = await renamed.copy(path / "new" / "copied")
        tree_copied = await (path / "folder").copy(path / "copied folder")
        moved = await copied.move(path / "moved")
        into = await (path / "file").copy_into(path / "new")
        await renamed.unlink()
        await (path / "new" / "hard").hardlink_to(path / "file")
        await (path / "new" / "soft").symlink_to("hard")
        await (path / "moved").chmod(0o600)
        with pytest.raises(FileExistsError):
            await (path / "new").mkdir()
        return [str(result.relative_to(tree)) for result in (renamed, copied, tree_copied, moved, into)]

    results = run(main())
    assert results == ["new/renamed", "new/copied", "copied folder", "moved", "new/file"]
    assert sorted(os.listdir(tree / "new")) == ["file", "hard", "soft"]
    assert (tree / "copied folder" / "inner" / "two.txt").read_text() == "22"
    assert (tree / "moved").stat().st_mode & 0o777 == 0o600


def test_writing(run: Run, tmp_path: Path) -> None:
    async def main() -> list[int]:
        path = ioxide.Path(tmp_path, "file")
        return [
            await path.write_text("é\n", "utf-8", newline="\r\n"),
            await ioxide.Path(tmp_path, "bytes").write_bytes(bytearray(b"12")),
        ]

    assert run(main()) == [2, 2]
    assert (tmp_path / "file").read_bytes() == "é\r\n".encode()
    assert (tmp_path / "bytes").read_bytes() == b"12"


def test_atomic_writing_replaces_the_file_and_keeps_its_permissions(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    target.chmod(0o640)
    inode = target.stat().st_ino

    async def main() -> int:
        await ioxide.Path(tmp_path, "fresh").write_bytes(b"fresh", atomic=True)
        written: int = await ioxide.Path(target).write_text("new\n", atomic=True, newline="\r\n")
        return written

    assert run(main()) == 4
    assert target.read_bytes() == b"new\r\n"
    assert target.stat().st_mode & 0o777 == 0o640
    assert target.stat().st_ino != inode
    plain = tmp_path / "plain"
    plain.write_text("")
    assert (tmp_path / "fresh").stat().st_mode == plain.stat().st_mode
    assert sorted(os.listdir(tmp_path)) == ["file", "fresh", "plain"]


def test_a_failed_atomic_write_leaves_the_old_content_and_nothing_else(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    async def main() -> None:
        with pytest.raises(IsADirectoryError):
            await ioxide.Path(folder).write_bytes(b"x", atomic=True)

    run(main())
    assert os.listdir(tmp_path) == ["folder"]


def test_the_whole_surface_of_this_pythons_pathlib_is_there_as_what_it_is() -> None:
    """What only handles names is pathlib's own; what asks the disk is awaited, what yields is iterated with `async for`."""
    left_out = {
        "info": "an object with synchronous methods that ask the disk",
        "link_to": "gone from pathlib since 3.12; `hardlink_to` is there",
    }
    names = {name for name in dir(pathlib.Path) if not name.startswith("_")}
    missing = names - set(dir(ioxide.Path)) - set(left_out)
    assert not missing
    pure = set(dir(pathlib.PurePosixPath))
    for name in sorted(names - pure - set(left_out) - {"from_uri", "open"}):
        method = inspect.getattr_static(ioxide.Path, name)
        method = getattr(method, "__func__", method)
        assert inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method), name


def test_arguments_are_those_of_pathlib() -> None:
    """Each parameter that this Python's pathlib has is taken; more are from later versions, or ioxide's own."""
    takes_all = {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
    for name in dir(pathlib.Path):
        theirs = getattr(pathlib.Path, name)
        if name.startswith("_") or not inspect.isfunction(theirs) or not hasattr(ioxide.Path, name):
            continue
        expected = inspect.signature(theirs).parameters
        actual = inspect.signature(getattr(ioxide.Path, name)).parameters
        if not any(parameter.kind in takes_all for parameter in actual.values()):
            assert set(expected) - set(actual) <= {"_stacklevel"}, name
