"""`ioxide.open` against Python's own files: the same operations, on the same bytes, with the same results and exceptions.

Every test runs on ioxide's loop and on asyncio's, and with each way of doing the work.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import ioxide
from ioxide.file import LINES_AT_MOST

Run = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("files_backend")


async def outcome_of(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What came of it: the result, or what kind of exception with which text."""
    try:
        return await coroutine
    except (OSError, ValueError, TypeError) as error:
        return type(error).__name__, str(error), getattr(error, "errno", None)


def outcome_of_call(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except (OSError, ValueError, TypeError) as error:
        return type(error).__name__, str(error), getattr(error, "errno", None)


OPERATIONS: list[Callable[[random.Random, bool], tuple[str, tuple[Any, ...]]]] = [
    lambda chance, binary: ("read", (chance.choice([0, 1, 3, 50, 5000, 100_000]),)),
    lambda chance, binary: ("read", ()),
    lambda chance, binary: ("readline", ()),
    lambda chance, binary: ("readline", (chance.randrange(40),)),
    lambda chance, binary: ("readlines", (chance.choice([0, 1, 100, -1]),)),
    lambda chance, binary: ("seek", (chance.choice([0, 0, 7, 5000]) if binary else 0,)),
    lambda chance, binary: ("seek", (0, 2)),
    lambda chance, binary: ("tell", ()),
    lambda chance, binary: ("write", (text(chance, binary, chance.choice([0, 5, 200, 20_000])),)),
    lambda chance, binary: ("writelines", ([text(chance, binary, 20), text(chance, binary, 3)],)),
    lambda chance, binary: ("flush", ()),
    lambda chance, binary: ("truncate", (chance.choice([None, 0, 10, 4000]),)),
]


def text(chance: random.Random, binary: bool, length: int) -> str | bytes:
    made = "".join(chance.choices("ab\n\r é€", weights=[20, 20, 3, 1, 3, 1, 1], k=length))
    return made.encode() if binary else made


def synchronous(file: Any, name: str, arguments: tuple[Any, ...]) -> Any:
    return outcome_of_call(getattr(file, name), *arguments)


MODES = ["r", "r+", "w", "w+", "a", "a+"]
WAYS_TO_OPEN = [(mode, newline) for mode in MODES for newline in (None, "", "\n", "\r", "\r\n")]
WAYS_TO_OPEN += [(mode + "b", None) for mode in MODES]


@pytest.mark.parametrize(("mode", "newline"), WAYS_TO_OPEN)
def test_random_operations_agree_with_a_synchronous_file(run: Run, tmp_path: Path, mode: str, newline: str | None) -> None:
    binary = "b" in mode
    chance = random.Random(f"{mode} {newline}")

    async def compare(round_: int) -> None:
        content = text(chance, True, chance.choice([0, 30, 9000, 200_000]))
        paths = tmp_path / f"synchronous{round_}", tmp_path / f"asynchronous{round_}"
        for path in paths:
            path.write_bytes(content)  # type: ignore[arg-type]
        keywords: dict[str, Any] = {} if binary else {"encoding": "utf-8", "newline": newline}
        expected = open(paths[0], mode, **keywords)  # noqa: SIM115 - closed below, like the other one
        actual = await ioxide.open(paths[1], mode, **keywords)
        log = []
        for _ in range(chance.randrange(2, 12)):
            name, arguments = chance.choice(OPERATIONS)(chance, binary)
            log.append((name, arguments))
            wanted = synchronous(expected, name, arguments)
            assert await outcome_of(getattr(actual, name)(*arguments)) == wanted, log
        expected.close()
        await actual.close()
        assert paths[1].read_bytes() == paths[0].read_bytes(), log

    async def main() -> None:
        for round_ in range(5):
            await compare(round_)

    run(main())


@pytest.mark.parametrize("buffering", [0, 1, 16, -1])
def test_buffering_is_that_of_open(run: Run, tmp_path: Path, buffering: int) -> None:
    async def main() -> tuple[Any, ...]:
        path = tmp_path / "file"
        mode = "wb" if buffering != 1 else "w"
        seen = []
        async with ioxide.open(path, mode, buffering) as file:
            for part in ("12345678", "9\n"):
                await file.write(part if mode == "w" else part.encode())
                seen.append(path.stat().st_size)
        return tuple(seen)

    seen = []
    path = tmp_path / "synchronous"
    mode = "wb" if buffering != 1 else "w"
    with open(path, mode, buffering) as file:
        for part in ("12345678", "9\n"):
            file.write(part if mode == "w" else part.encode())
            seen.append(path.stat().st_size)
    assert run(main()) == tuple(seen)


@pytest.mark.parametrize("lines", [0, 1, LINES_AT_MOST, LINES_AT_MOST + 1, 5000])
@pytest.mark.parametrize("mode", ["r", "rb"])
def test_iteration_yields_each_line_once(run: Run, tmp_path: Path, lines: int, mode: str) -> None:
    path = tmp_path / "file"
    path.write_text("".join(f"line {number}\n" for number in range(lines)) + "no end")

    async def main() -> list[Any]:
        async with ioxide.open(path, mode) as file:
            return [line async for line in file]

    with open(path, mode) as file:
        assert run(main()) == list(file)


@pytest.mark.parametrize("mode", ["r", "rb"])
def test_other_operations_go_on_where_iteration_stopped(run: Run, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "file"
    path.write_text("".join(f"line {number}\n" for number in range(3000)))

    async def main() -> list[Any]:
        seen: list[Any] = []
        async with ioxide.open(path, mode) as file:
            async for line in file:
                seen.append(line)
                if len(seen) == 100:
                    break
            seen += [await file.readline(), await file.read(20), await file.readline(3), await file.readlines(30)]
            seen += [line async for line in file][:5]
            await file.seek(0)
            seen.append(await file.readline())
        return seen

    expected: list[Any] = []
    with open(path, mode) as file:
        for line in file:
            expected.append(line)
            if len(expected) == 100:
                break
        expected += [file.readline(), file.read(20), file.readline(3), file.readlines(30)]
        expected += list(file)[:5]
        file.seek(0)
        expected.append(file.readline())
    assert run(main()) == expected


def test_operations_on_a_closed_file_fail_as_they_do_with_open(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")

    async def main() -> list[Any]:
        file = await ioxide.open(path, "r+")
        await file.close()
        await file.close()
        assert file.closed
        names = ("read", "readline", "readlines", "tell", "flush")
        return [(await outcome_of(getattr(file, name)()))[0] for name in names]

    assert run(main()) == ["ValueError"] * 5


def test_overlapping_operations_run_in_the_order_of_their_calls(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def main() -> list[Any]:
        async with ioxide.open(path, "w+", 1) as file:
            await asyncio.gather(*(file.write(f"{number}\n") for number in range(200)))
            await file.seek(0)
            return await asyncio.gather(*(file.readline() for _ in range(200)))

    assert run(main()) == [f"{number}\n" for number in range(200)]


def test_positional_reads_and_writes_under_gather(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def main() -> list[bytes]:
        async with ioxide.open(path, "w+b") as file:
            await asyncio.gather(*(file.pwrite(bytes([number]) * 1000, number * 1000) for number in range(50)))
            return await asyncio.gather(*(file.pread(1000, number * 1000) for number in range(51)))

    assert run(main()) == [bytes([number]) * 1000 for number in range(50)] + [b""]


def test_a_pipe_is_read_while_other_tasks_run(run: Run) -> None:
    async def main() -> tuple[list[bytes], int]:
        reading, writing = os.pipe()
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            for _ in range(3):
                await asyncio.sleep(0)
                ticks += 1
            os.write(writing, b"first\nsec")
            await asyncio.sleep(0)
            os.write(writing, b"ond\nrest")
            os.close(writing)

        async with ioxide.open(reading, "rb") as file:
            ticking = asyncio.create_task(tick())
            lines = [await file.readline(), await file.readline(), await file.read()]
            await ticking
        return lines, ticks

    assert run(main()) == ([b"first\n", b"second\n", b"rest"], 3)


def test_a_cancelled_read_of_a_pipe_loses_no_bytes(run: Run) -> None:
    async def main() -> bytes:
        reading, writing = os.pipe()
        async with ioxide.open(reading, "rb") as file:
            task = asyncio.create_task(file.readline())
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            os.write(writing, b"kept\n")
            os.close(writing)
            line: bytes = await file.readline()
            return line

    assert run(main()) == b"kept\n"


def test_special_files(run: Run) -> None:
    async def main() -> tuple[bool, bytes, Any]:
        async with ioxide.open("/proc/self/status") as status:
            has_name = (await status.read()).startswith("Name:")
        async with ioxide.open("/dev/zero", "rb", 0) as zero:
            zeros = await zero.read(100)
        full = await ioxide.open("/dev/full", "w")
        await full.write("lost")
        outcome = await outcome_of(full.flush())
        with pytest.raises(OSError, match="No space left"):
            await full.close()
        assert full.closed
        return has_name, zeros, outcome

    assert run(main()) == (True, bytes(100), ("OSError", "[Errno 28] No space left on device", errno.ENOSPC))


def test_sparse_and_large_offsets(run: Run, tmp_path: Path) -> None:
    async def main() -> tuple[int, bytes, bytes]:
        async with ioxide.open(tmp_path / "sparse", "w+b") as file:
            await file.seek(5 << 30)
            await file.write(b"end")
            length = await file.seek(0, os.SEEK_END)
            await file.seek((5 << 30) - 2)
            return length, await file.read(), await file.pread(4, (5 << 30) + 1)

    assert run(main()) == ((5 << 30) + 3, b"\0\0end", b"nd")


def test_a_growing_and_a_truncated_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("one\n")

    async def main() -> list[str]:
        async with ioxide.open(path) as file:
            seen = [await file.readline(), await file.readline()]
            with open(path, "a") as log:
                log.write("two\n")
            seen += [await file.readline(), await file.readline()]
            os.truncate(path, 0)
            seen.append(await file.readline())
        return seen

    assert run(main()) == ["one\n", "", "two\n", "", ""]


def test_many_operations_leave_no_descriptor_open(run: Run, tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def main() -> tuple[int, int]:
        async with ioxide.open(tmp_path / "first", "w") as file:
            await file.write("x")
        before = descriptors()
        for _ in range(200):
            async with ioxide.open(tmp_path / "first") as file:
                await file.read()
        tasks = [asyncio.create_task(open_and_close(tmp_path / str(number))) for number in range(100)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(500):  # what was cancelled while it was being opened is closed when it comes
            if descriptors() == before:
                break
            await asyncio.sleep(0.01)
        return before, descriptors()

    async def open_and_close(path: Path) -> None:
        async with ioxide.open(path, "w") as file:
            await file.write("x" * 10_000)

    before, after = run(main())
    assert after == before
