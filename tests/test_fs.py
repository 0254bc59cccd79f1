"""`ioxide.fs` against os, os.path and shutil, on both loops."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ioxide import fs

Run = Callable[..., Any]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for number in range(30):
        folder = tmp_path / f"folder{number}" / "inner"
        folder.mkdir(parents=True)
        for name in ("a", "b"):
            (folder / name).write_text(name)
    (tmp_path / "link").symlink_to("folder1")
    return tmp_path


def test_each_function_has_the_signature_of_the_one_it_is_named_after() -> None:
    for module in (os, os.path, shutil):
        for name, function in vars(fs).items():
            wrapped = getattr(function, "__wrapped__", None)
            if wrapped is not None and wrapped is getattr(module, name, None):
                assert inspect.iscoroutinefunction(function), name
                assert function.__doc__ == wrapped.__doc__


@pytest.mark.parametrize("topdown", [True, False])
@pytest.mark.parametrize("followlinks", [True, False])
def test_walk_visits_what_os_walk_visits(run: Run, tree: Path, topdown: bool, followlinks: bool) -> None:
    async def main() -> list[Any]:
        return [visited async for visited in fs.walk(tree, topdown, None, followlinks)]

    assert run(main()) == list(os.walk(tree, topdown, None, followlinks))


def test_walk_does_not_enter_what_was_removed_from_the_list(run: Run, tree: Path) -> None:
    async def main() -> list[str]:
        seen = []
        async for directory, directories, _ in fs.walk(str(tree)):
            directories[:] = [name for name in directories if name != "folder7"]
            seen.append(directory)
        return seen

    seen = run(main())
    assert len(seen) == 1 + 29 * 2
    assert not any("folder7" in directory for directory in seen)


def test_walk_reports_errors(run: Run, tmp_path: Path) -> None:
    errors: list[OSError] = []

    async def main() -> list[Any]:
        return [visited async for visited in fs.walk(tmp_path / "missing", onerror=errors.append)]

    assert run(main()) == []
    assert [type(error) for error in errors] == [FileNotFoundError]


def test_scandir_yields_the_entries(run: Run, tree: Path) -> None:
    async def main() -> list[tuple[str, bool]]:
        return sorted([(entry.name, entry.is_dir()) async for entry in fs.scandir(tree)])

    with os.scandir(tree) as entries:
        assert run(main()) == sorted((entry.name, entry.is_dir()) for entry in entries)


def test_stat_many_gives_an_error_where_a_file_is_missing(run: Run, tree: Path) -> None:
    async def main() -> list[Any]:
        return await fs.stat_many([tree, tree / "missing", tree / "link"])

    found = run(main())
    assert [type(item) for item in found] == [os.stat_result, FileNotFoundError, os.stat_result]
    assert found[2].st_ino == (tree / "folder1").stat().st_ino


def test_copies_moves_and_removes(run: Run, tree: Path) -> None:
    async def main() -> None:
        await fs.copytree(tree / "folder0", tree / "copied")
        await fs.copyfile(tree / "copied" / "inner" / "a", tree / "file")
        await fs.move(tree / "file", tree / "moved")
        await fs.rmtree(tree / "folder1")
        await fs.makedirs(tree / "x" / "y", exist_ok=True)
        with pytest.raises(FileNotFoundError) as caught:
            await fs.remove(tree / "file")
        assert caught.value.filename == str(tree / "file")

    run(main())
    assert (tree / "moved").read_text() == "a"
    assert not (tree / "folder1").exists()


def test_looking_works_for_missing_broken_and_descriptor_paths(run: Run, tree: Path) -> None:
    (tree / "broken").symlink_to("nowhere")
    cases = [tree, tree / "missing", tree / "broken", tree / "link", str(tree), os.fsencode(tree)]

    async def main() -> list[Any]:
        return [(await fs.exists(path), await fs.isdir(path), await fs.islink(path)) for path in cases]

    assert run(main()) == [(os.path.exists(path), os.path.isdir(path), os.path.islink(path)) for path in cases]

    async def of_descriptor() -> int:
        with open(tree / "folder0" / "inner" / "a") as file:
            return (await fs.stat(file.fileno())).st_size

    assert run(of_descriptor()) == 1


def test_work_in_the_pool_leaves_the_loop_free(run: Run) -> None:
    import asyncio

    async def main() -> int:
        event = threading.Event()
        waiting = asyncio.ensure_future(fs.in_pool(event.wait)())
        turns = 0
        while turns < 10:
            await asyncio.sleep(0)
            turns += 1
        event.set()
        assert await waiting
        return turns

    assert run(main()) == 10


def test_an_unknown_backend_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    program = "import asyncio, ioxide; asyncio.run(ioxide.Path('file').read_text())"
    environment = {**os.environ, "IOXIDE_FILES": "floppy", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert "ValueError: IOXIDE_FILES must be" in ended.stderr
