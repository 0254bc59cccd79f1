"""`from ioxide import files as aiofiles`: aiofiles' names, arguments and examples. Its own test suite runs in tests/apps."""

from __future__ import annotations

import concurrent.futures
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ioxide import files as aiofiles
from ioxide.files import threadpool

Run = Callable[..., Any]


def test_the_examples_of_aiofiles(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "filename"
    path.write_text("one\ntwo\n")

    async def main() -> list[Any]:
        async with aiofiles.open(path, mode="r") as f:
            contents = await f.read()
        lines = []
        async with aiofiles.open(path) as f:
            async for line in f:
                lines.append(line)
        async with aiofiles.tempfile.TemporaryFile("wb") as f:
            await f.write(b"Hello, World!")
        async with aiofiles.tempfile.TemporaryDirectory() as d:
            filename = os.path.join(d, "file.ext")
            assert not await aiofiles.os.path.exists(filename)
        return [contents, lines, (await aiofiles.os.stat(path)).st_size]

    assert run(main()) == ["one\ntwo\n", ["one\n", "two\n"], 8]


def test_loop_and_executor_are_taken(run: Run, tmp_path: Path) -> None:
    async def main() -> int:
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            async with aiofiles.open(tmp_path / "file", "w", loop=None, executor=executor) as file:
                await file.write("abc")
            return int(await aiofiles.os.path.getsize(tmp_path / "file", executor=executor))

    assert run(main()) == 3


def test_wrap_makes_operations_of_a_synchronous_file_awaitable(run: Run) -> None:
    async def main() -> list[str]:
        async with threadpool.wrap(io.StringIO("a\nb\n")) as file:
            return [line async for line in file]

    assert run(main()) == ["a\n", "b\n"]
    with pytest.raises(TypeError, match="Unsupported io type"):
        threadpool.wrap(3)


def test_standard_streams_are_those_of_sys(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        await aiofiles.stdout.write("out")
        await aiofiles.stderr.write("err")

    run(main())
    assert tuple(capsys.readouterr()) == ("out", "err")
