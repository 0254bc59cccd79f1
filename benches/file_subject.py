"""What files.py measures: the same rows for each way to use files, in a process of its own.

A way is a class with the operations that it offers; a row names one of them. Which processes run and what becomes of the
figures belongs to files.py.

Invariants:
 1. A row's file operations are those that a user of the library would write, and each checks what it has read.
 2. A batch is repeated until it has taken `SECONDS` in all; a figure is time divided by operations.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import loops
import machine

SIZE = 4096
FILES = 1000
LINES = 5000
SECONDS = 0.15
CHUNK = 1 << 20


class Synchronous:
    """Python's own calls, which block: the limit."""

    loop = "asyncio"

    async def open_read_close(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    async def pread(self, path: str, count: int) -> None:
        with open(path, "rb") as file:
            descriptor = file.fileno()
            for _ in range(count):
                expect(len(os.pread(descriptor, SIZE, 0)) == SIZE)

    async def lines(self, path: str) -> int:
        with open(path) as file:
            return sum(1 for _line in file)

    async def write(self, path: str, data: bytes) -> None:
        with open(path, "wb") as file:
            file.write(data)

    async def gathered(self, operations: list[Any]) -> None:
        for operation in operations:
            await operation

    async def walk(self, folder: str) -> int:
        return sum(len(directories) + len(files) for _directory, directories, files in os.walk(folder))

    async def read_chunks(self, path: str) -> int:
        """By another process: in this one, nothing else would run meanwhile."""
        program = f"import sys; file = open(sys.argv[1], 'rb', 0); print(sum(map(len, iter(lambda: file.read({CHUNK}), b''))))"
        reading = await asyncio.create_subprocess_exec(sys.executable, "-c", program, path, stdout=asyncio.subprocess.PIPE)
        counted, _ = await reading.communicate()
        return int(counted)


class Asynchronous:
    """What the asynchronous libraries have in common: files with awaited methods."""

    loop = "asyncio"
    open: Callable[..., Any]

    async def open_read_close(self, path: str) -> bytes:
        async with self.open(path, "rb") as file:
            content: bytes = await file.read()
            return content

    async def pread(self, path: str, count: int) -> None:
        async with self.open(path, "rb") as file:
            for _ in range(count):
                await file.seek(0)
                expect(len(await file.read(SIZE)) == SIZE)

    async def lines(self, path: str) -> int:
        count = 0
        async with self.open(path) as file:
            async for _line in file:
                count += 1
        return count

    async def write(self, path: str, data: bytes) -> None:
        async with self.open(path, "wb") as file:
            await file.write(data)

    async def gathered(self, operations: list[Any]) -> None:
        await asyncio.gather(*operations)

    async def read_chunks(self, path: str) -> int:
        total = 0
        async with self.open(path, "rb") as file:
            while data := await file.read(CHUNK):
                total += len(data)
        return total


class Aiofiles(Asynchronous):
    def __init__(self) -> None:
        self.open = importlib.import_module("aiofiles").open


class Aiofile(Asynchronous):
    def __init__(self) -> None:
        self.open = importlib.import_module("aiofile").async_open

    async def pread(self, path: str, count: int) -> None:
        async with self.open(path, "rb") as file:
            for _ in range(count):
                expect(len(await file.file.read_bytes(SIZE, 0)) == SIZE)


class Anyio(Asynchronous):
    def __init__(self) -> None:
        self.anyio = importlib.import_module("anyio")

    def open(self, path: str, mode: str = "r") -> Any:  # type: ignore[override]
        return _Entered(self.anyio.open_file(path, mode))

    async def open_read_close(self, path: str) -> bytes:
        content: bytes = await self.anyio.Path(path).read_bytes()
        return content

    async def write(self, path: str, data: bytes) -> None:
        await self.anyio.Path(path).write_bytes(data)

    async def walk(self, folder: str) -> int:
        total = 0
        async for _directory, directories, files in self.anyio.Path(folder).walk():
            total += len(directories) + len(files)
        return total


class _Entered:
    """anyio.open_file is awaited before it is entered."""

    def __init__(self, opening: Any) -> None:
        self.opening = opening

    async def __aenter__(self) -> Any:
        self.file = await self.opening
        return self.file

    async def __aexit__(self, *exception: object) -> None:
        await self.file.aclose()


class Ioxide(Asynchronous):
    loop = "ioxide"

    def __init__(self) -> None:
        self.ioxide = importlib.import_module("ioxide")
        self.open = self.ioxide.open

    async def pread(self, path: str, count: int) -> None:
        async with self.open(path, "rb") as file:
            for _ in range(count):
                expect(len(await file.pread(SIZE, 0)) == SIZE)

    async def walk(self, folder: str) -> int:
        total = 0
        async for _directory, directories, files in self.ioxide.fs.walk(folder):
            total += len(directories) + len(files)
        return total


# way -> (its class, IOXIDE_FILES)
WAYS: dict[str, tuple[Callable[[], Any], str]] = {
    "synchronous": (Synchronous, ""),
    "ioxide": (Ioxide, "auto"),
    "ioxide uring": (Ioxide, "uring"),
    "ioxide threads": (Ioxide, "threads"),
    "aiofiles": (Aiofiles, ""),
    "aiofile": (Aiofile, ""),
    "anyio": (Anyio, ""),
}


def expect(condition: bool) -> None:
    if not condition:
        raise SystemExit("a file had not the content that was written to it")


class Rows:
    """One batch of each row: does so many operations, and returns how many."""

    def __init__(self, way: Any, folder: str, in_memory: str) -> None:
        self.way = way
        self.folder = folder
        self.in_memory = [os.path.join(in_memory, str(number)) for number in range(FILES)]
        self.data = bytes(SIZE)
        self.small = [os.path.join(folder, "small", str(number)) for number in range(FILES)]

    async def open_read_close(self) -> int:
        for path in self.small[:20]:
            expect(len(await self.way.open_read_close(path)) == SIZE)
        return 20

    async def pread(self) -> int:
        await self.way.pread(self.small[0], 200)
        return 200

    async def gather(self) -> int:
        await self.way.gathered([self.way.open_read_close(path) for path in self.small])
        return FILES

    async def lines(self) -> int:
        expect(await self.way.lines(os.path.join(self.folder, "lines")) == LINES)
        return LINES

    async def write(self) -> int:
        await self.way.gathered([self.way.write(path, self.data) for path in self.small])
        return FILES

    async def write_in_memory(self) -> int:
        await self.way.gathered([self.way.write(path, self.data) for path in self.in_memory])
        return FILES

    async def walk(self) -> int:
        tree = os.path.join(self.folder, "tree")
        entries = await self.way.walk(tree)
        expect(entries >= 1000)
        return int(entries)


async def measure(rows: Rows, name: str) -> dict[str, float]:
    """Nanoseconds of wall and of CPU time per operation, all threads."""
    batch = getattr(rows, name)
    await batch()
    gc.collect()
    operations = 0
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    while time.perf_counter_ns() - wall < SECONDS * 1e9:
        operations += await batch()
    cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
    return {"wall": wall / operations, "cpu": cpu / operations}


async def lag(way: Any, path: str) -> dict[str, float]:
    """How late a task of every millisecond is while a file that no memory has is read, in milliseconds."""
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)))  # the reader's threads may use the other core
    forget(path)
    late: list[float] = []
    reading = asyncio.ensure_future(way.read_chunks(path))
    started = time.perf_counter()
    while not reading.done():
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        late.append(1000 * (time.perf_counter() - before - 0.001))
    expect(await reading == os.path.getsize(path))
    seconds = time.perf_counter() - started
    late.sort()
    return {
        "p99": late[int(len(late) * 0.99)],
        "worst": late[-1],
        "samples": len(late),
        "mebibytes per second": os.path.getsize(path) / 2**20 / seconds,
    }


def forget(path: str) -> None:
    """Takes the file out of the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # only what is on the disk can be forgotten
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        expect_cold(descriptor)
    finally:
        os.close(descriptor)


def expect_cold(descriptor: int) -> None:
    """Looks at one place, because looking makes the kernel read ahead there."""
    try:
        os.preadv(descriptor, [bytearray(1)], os.fstat(descriptor).st_size // 2, os.RWF_NOWAIT)
    except OSError:
        return  # it would have to wait, or the file system does not tell
    raise SystemExit("the page cache still has the file that should be cold")


async def growth(rows: Rows, operations: int) -> dict[str, float]:
    """Descriptors and memory before and after so many times open, read, write and close."""
    before: tuple[int, int] | None = None
    for half in range(2):
        for _ in range(operations // 40 // 2):
            await rows.open_read_close()
            await asyncio.gather(*(rows.way.write(path, b"x" * SIZE) for path in rows.small[:20]))
        gc.collect()
        if not half:
            before = machine.open_descriptors(), machine.resident_bytes()
    assert before is not None
    return {
        "descriptors": machine.open_descriptors() - before[0],
        "KiB": (machine.resident_bytes() - before[1]) / 1024,
    }


async def answer(rows: Rows, question: str, operations: int) -> dict[str, float]:
    if question == "lag":
        return await lag(rows.way, os.path.join(rows.folder, "large"))
    if question == "growth":
        return await growth(rows, operations)
    if not hasattr(rows.way, question) and question == "walk":
        return {}
    return await measure(rows, question)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("folder")
    parser.add_argument("in_memory", help="a folder on a tmpfs")
    parser.add_argument("--operations", type=int, default=100_000)
    options = parser.parse_args()
    way = WAYS[options.way][0]()
    rows = Rows(way, options.folder, options.in_memory)
    for line in sys.stdin:
        figures = loops.run(way.loop, partial(answer, rows, line.strip(), options.operations))
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
