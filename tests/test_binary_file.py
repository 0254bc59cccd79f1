"""Files of bytes, whose buffer is made late: what they do must not tell when."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ioxide

Run = Callable[..., Any]


@pytest.mark.parametrize("length", [0, 1, 100, 4095, 4096, 4097, 8192, 200_000])
def test_all_of_a_file_is_read_and_nothing_follows(run: Run, tmp_path: Path, length: int) -> None:
    path, content = tmp_path / "file", os.urandom(length)
    path.write_bytes(content)

    async def main() -> list[bytes]:
        async with ioxide.open(path, "rb") as file:
            return [await file.read(), await file.read(), await file.read(3)]

    assert run(main()) == [content, b"", b""]


@pytest.mark.parametrize("length", [100, 4096])
def test_what_was_appended_after_the_end_was_met_is_read(run: Run, tmp_path: Path, length: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * length)

    async def main() -> list[bytes]:
        async with ioxide.open(path, "rb") as file:
            read = [await file.read()]
            with open(path, "ab") as other:
                other.write(b"b" * length)
            return [*read, await file.read(), await file.readline()]

    assert run(main()) == [b"a" * length, b"b" * length, b""]


@pytest.mark.parametrize("first", ["read", "peek", "readline", "nothing"])
def test_the_buffer_comes_where_it_is_wanted(run: Run, tmp_path: Path, first: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo\nthree\n" * 1000)

    async def main() -> list[Any]:
        async with ioxide.open(path, "rb") as file:
            results = [await file.read(5), await file.tell()] if first == "read" else []
            results += [(await file.peek(3))[:3], await file.tell()] if first == "peek" else []
            results += [await file.readline(), await file.tell()] if first == "readline" else []
            results += [len(await file.read()), await file.seek(4), await file.readline(), file.raw.tell() >= 8]
            results += [await file.read(), await file.tell(), file.name, file.mode]
        assert file.closed
        return results

    with open(path, "rb") as file:
        expected: list[Any] = [file.read(5), file.tell()] if first == "read" else []
        expected += [file.peek(3)[:3], file.tell()] if first == "peek" else []
        expected += [file.readline(), file.tell()] if first == "readline" else []
        expected += [len(file.read()), file.seek(4), file.readline(), file.raw.tell() >= 8]
        expected += [file.read(), file.tell(), file.name, file.mode]
    assert run(main()) == expected


def test_a_closed_file_complains_in_the_words_of_open(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with open(path, "rb") as closed:
        pass
    calls: dict[str, tuple[Any, ...]] = {"seek": (0,), "tell": (), "fileno": (), "isatty": (), "seekable": (), "flush": ()}

    async def main() -> list[Any]:
        async with ioxide.open(path, "rb") as file:
            pass
        assert (file.closed, file.name, file.mode) == (closed.closed, closed.name, closed.mode)
        results = []
        for name, arguments in calls.items():
            try:
                outcome = getattr(file, name)(*arguments)
                results.append(await outcome if hasattr(outcome, "__await__") else outcome)
            except ValueError as error:
                results.append(str(error))
        return results

    expected = []
    for name, arguments in calls.items():
        with pytest.raises(ValueError) as caught:
            getattr(closed, name)(*arguments)
        expected.append(str(caught.value))
    assert run(main()) == expected


def test_a_closed_file_is_not_read(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")

    async def main() -> None:
        async with ioxide.open(path, "rb") as file:
            pass
        for name in ("read", "readline", "readall", "peek", "read1"):
            with pytest.raises(ValueError, match="closed file"):
                await getattr(file, name)()

    run(main())


def test_readers_take_turns_with_the_rest_of_the_program(run: Run, tmp_path: Path) -> None:
    import asyncio

    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)

    async def main() -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        async with ioxide.open(path, "rb") as file:
            while turns < 3:  # never, if reading from memory kept the loop
                await file.seek(0)
                assert await file.read() == b"x" * 100
        counting.cancel()
        return turns

    assert run(main()) >= 3
