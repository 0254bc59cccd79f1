"""Each function of `ioxide.fs` against the one that it is named after: the same calls on two equal trees, on both loops.

What it is: arguments of all kinds, results, exceptions with errno, filename and filename2, and the tree afterwards.
What it leaves to others: `walk`, `scandir`, `stat_many` and cancellation are test_fs.py's.

Invariants
1. A function of `ioxide.fs` without a call in `CALLS` fails the first test.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fs_calls import CALLS, Named, Tree
from ioxide import fs

Run = Callable[..., Any]
# What a function may raise for what is asked of it here.
FAILURES = (OSError, ValueError, TypeError, NotImplementedError, shutil.Error)


def functions() -> dict[str, tuple[Any, Any]]:
    """Name -> the function of `ioxide.fs`, and the one that it is named after."""
    found = {name: (function, getattr(function, "__wrapped__", None)) for name, function in vars(fs).items()}
    return {name: pair for name, pair in found.items() if pair[1] is not None and not name.startswith("_")}


def test_each_function_is_called_here_and_named_after_what_it_wraps() -> None:
    assert set(functions()) == set(CALLS)
    for name, (_, original) in functions().items():
        assert original in [getattr(module, name, None) for module in (os, os.path, shutil)], name


@pytest.fixture
def trees(tmp_path: Path) -> Iterator[tuple[Tree, Tree]]:
    made = []
    for name in ("expected", "actual__"):  # as long as each other, so that what names are too long is the same
        (tmp_path / name).mkdir()
        made.append(Tree(tmp_path / name))
    yield made[0], made[1]
    for tree in made:
        tree.close()


def told(value: Any, tree: Tree) -> Any:
    """A result or an argument of an exception, without what differs between two trees."""
    root = str(tree.root)
    if isinstance(value, OSError):
        descriptors = {tree.descriptor: "descriptor", tree.target: "target", tree.within: "within"}
        names = tuple(descriptors.get(name, name) for name in (value.filename, value.filename2))
        return type(value).__name__, value.errno, value.strerror, told(names, tree)
    if isinstance(value, BaseException):
        return type(value).__name__, told(str(value), tree)
    if isinstance(value, os.stat_result):
        return value.st_mode, value.st_nlink, value.st_size, value.st_uid
    if isinstance(value, os.statvfs_result):
        return value.f_bsize, value.f_namemax
    if isinstance(value, tuple) and hasattr(value, "total"):
        return value.total
    if isinstance(value, list):
        return sorted((told(item, tree) for item in value), key=repr)
    if isinstance(value, tuple):
        return tuple(told(item, tree) for item in value)
    if isinstance(value, str):
        return re.sub("0x[0-9a-f]+", "", value.replace(root, ""))
    if isinstance(value, bytes):
        return value.replace(os.fsencode(root), b"")
    return told(str(value), tree) if isinstance(value, pathlib.PurePath | Named) else value


@pytest.mark.parametrize("backend", ["auto", "threads"])
@pytest.mark.parametrize("name", CALLS)
def test_it_does_what_the_function_does_that_it_is_named_after(
    run: Run, trees: tuple[Tree, Tree], name: str, backend: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("IOXIDE_FILES", backend)
    asynchronous, synchronous = functions()[name]
    expected_tree, tree = trees

    async def main() -> list[Any]:
        outcomes = []
        for arguments, keywords in CALLS[name](tree):
            try:
                outcomes.append(told(await asynchronous(*arguments, **keywords), tree))
            except FAILURES as error:
                outcomes.append(told(error, tree))
        return outcomes

    expected: list[Any] = []
    for arguments, keywords in CALLS[name](expected_tree):
        try:
            expected.append(told(synchronous(*arguments, **keywords), expected_tree))
        except FAILURES as error:
            expected.append(told(error, expected_tree))
    for number, (found, wanted) in enumerate(zip(run(main()), expected, strict=True)):
        assert found == wanted, (number, CALLS[name](tree)[number])
    assert tree.content() == expected_tree.content()


def test_where_a_function_of_the_caller_runs(run: Run, tmp_path: Path) -> None:
    """`onerror` of walk on the loop's thread, where what it changes needs no lock."""
    import threading

    (tmp_path / "folder").mkdir()
    threads: list[int] = []

    async def main() -> int:
        for topdown in (True, False):
            found = fs.walk(tmp_path / "missing", topdown, onerror=lambda error: threads.append(threading.get_ident()))
            assert [visited async for visited in found] == []
        return threading.get_ident()

    thread = run(main())
    assert threads == [thread, thread]


def test_a_walk_from_below_yields_what_comes_before_an_error(run: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()

    async def main() -> list[Any]:
        seen = []
        with pytest.raises(ZeroDivisionError):
            async for folder in fs.in_batches(1 / number for number in (1, 2, 0, 3)):
                seen.append(folder)
        return seen

    assert run(main()) == [1.0, 0.5]


def test_a_cancelled_scandir_closes_the_directory(run: Run, tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / str(number)).touch()

    async def look() -> int:
        return len([entry async for entry in fs.scandir(tmp_path)])

    async def main() -> None:
        before = len(os.listdir("/proc/self/fd"))
        for turns in range(40):
            looking = asyncio.ensure_future(look())
            for _ in range(turns % 8):
                await asyncio.sleep(0)
            looking.cancel()
            await asyncio.wait([looking])
        assert await look() == 3000
        await fs.in_pool(len)(())  # behind the last batch that nobody waits for
        while len(os.listdir("/proc/self/fd")) > before + 2:
            await asyncio.sleep(0.01)

    run(asyncio.wait_for(main(), 60))
