"""Files where something gives way: a full or read-only file system, signals, short writes, FIFOs, forks, several loops.

Every test runs on ioxide's loop and on asyncio's, and with each way of doing the work; what is expected is what Python's own
files do in the same place.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ioxide
from conftest import LoopFactory

Run = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("files_backend")

MEBIBYTE = 1 << 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"this root may not mount: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def synchronous_outcome(path: Path, data: bytes) -> tuple[Any, int]:
    error: Any = None
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as raised:
        error = type(raised), raised.errno
    length = path.stat().st_size
    path.unlink()
    return error, length


async def asynchronous_outcome(path: Path, data: bytes) -> tuple[Any, int]:
    error: Any = None
    try:
        async with ioxide.open(path, "wb") as file:
            await file.write(data)
    except OSError as raised:
        error = type(raised), raised.errno
    length = path.stat().st_size
    path.unlink()
    return error, length


def test_a_full_file_system(run: Run, small: Path) -> None:
    data = bytes(2 * MEBIBYTE)
    expected = synchronous_outcome(small / "file", data)
    assert expected[0] == (OSError, errno.ENOSPC)
    assert run(asynchronous_outcome(small / "file", data)) == expected


def test_what_did_not_fit_is_written_when_there_is_room(run: Run, small: Path) -> None:
    async def main() -> bytes:
        filler = small / "filler"
        filler.write_bytes(bytes(MEBIBYTE - 8192))
        file = await ioxide.open(small / "file", "wb")
        try:
            with pytest.raises(OSError, match="No space left"):
                await file.write(b"x" * 40_000)
                await file.flush()
            filler.unlink()
            await file.flush()
        finally:
            await file.close()
        return (small / "file").read_bytes()

    assert run(main()) == b"x" * 40_000


def test_a_read_only_file_system(run: Run, small: Path) -> None:
    (small / "file").write_text("content")
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)

    async def main() -> list[Any]:
        seen: list[Any] = []
        for name, mode in (("file", "r+"), ("file", "w"), ("new", "w")):
            try:
                await ioxide.open(small / name, mode)
            except OSError as error:
                seen.append((error.errno, error.filename))
        async with ioxide.open(small / "file") as file:
            seen.append(await file.read())
        return seen

    refused = [(errno.EROFS, str(small / name)) for name in ("file", "file", "new")]
    assert run(main()) == [*refused, "content"]


def test_a_short_write_is_continued_until_the_limit(run: Run, tmp_path: Path) -> None:
    data = os.urandom(100_000)

    async def main() -> tuple[Any, int]:
        return await asynchronous_outcome(tmp_path / "file", data)

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_001, before[1]))
    try:
        expected = synchronous_outcome(tmp_path / "file", data)
        actual = run(main())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert expected == actual == ((OSError, errno.EFBIG), 50_001)


def test_a_large_write_to_a_pipe_goes_on_while_somebody_reads(run: Run) -> None:
    data = os.urandom(MEBIBYTE)

    async def main() -> bytes:
        reading, writing = os.pipe()
        async with ioxide.open(reading, "rb") as source:
            async with ioxide.open(writing, "wb") as target:
                sent = asyncio.create_task(target.write(data))
                received = await source.read(len(data))
                await sent
            assert await source.read() == b""
        return bytes(received)

    assert run(main()) == data


def test_fifos_are_opened_and_read_while_other_tasks_run(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)

    async def write() -> None:
        async with ioxide.open(path, "w") as file:
            await file.write("through the fifo\n")

    async def read() -> str:
        async with ioxide.open(path) as file:
            text: str = await file.read()
            return text

    async def main() -> str:
        reading = asyncio.create_task(read())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not reading.done()
        await write()
        return await reading

    skip_where_opening_holds_the_loop_up()
    assert run(main()) == "through the fifo\n"


def skip_where_opening_holds_the_loop_up() -> None:
    if ioxide.fs.backend() == "inline":
        pytest.skip("inline opens on the loop's thread, as it says: a FIFO's open waits there for the other end")


def test_who_waits_at_the_other_end_of_a_fifo_sees_neither_it_closed_nor_its_bytes_lost(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)

    def write() -> None:
        with open(path, "w") as file:
            file.write("to ioxide\n")

    def read() -> str:
        with open(path) as file:
            return file.read()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(100):
            other = loop.run_in_executor(None, write)
            async with asyncio.timeout(60), ioxide.open(path) as source:
                assert await source.read() == "to ioxide\n"
            await other
            reading = loop.run_in_executor(None, read)
            async with asyncio.timeout(60), ioxide.open(path, "w") as target:
                await target.write("from ioxide\n")
            assert await reading == "from ioxide\n"

    skip_where_opening_holds_the_loop_up()
    run(main())


@pytest.mark.parametrize("path", ["/proc/self/status", "/proc/cpuinfo", "/proc/self/maps", "/sys/kernel/mm/ksm/run"])
def test_files_that_do_not_know_their_length(run: Run, path: str) -> None:
    if not os.path.exists(path):
        pytest.skip(f"this kernel has no {path}")

    async def main() -> tuple[bytes, list[str]]:
        async with ioxide.open(path, "rb") as file:
            whole = await file.read()
        async with ioxide.open(path) as file:
            lines = [line async for line in file]
        return whole, lines

    whole, lines = run(main())
    with open(path, "rb") as file:
        expected = file.read()
    assert len(whole) > 0
    assert whole.split()[:1] == expected.split()[:1]
    assert lines[0].encode() == whole.splitlines(keepends=True)[0]


def test_signals_interrupt_nothing(run: Run, tmp_path: Path) -> None:
    """A timer that fires every half millisecond interrupts system calls of this thread, EINTR, which nobody may see."""
    path = tmp_path / "file"
    data = os.urandom(300_000)
    fired = 0

    def count(_number: int, _frame: object) -> None:
        nonlocal fired
        fired += 1

    async def main() -> None:
        for _ in range(20):
            async with ioxide.open(path, "wb") as file:
                await file.write(data)
                await file.sync()
            async with ioxide.open(path, "rb") as file:
                assert await file.read() == data

    before = signal.signal(signal.SIGALRM, count)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        run(main())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert fired > 0


def test_a_file_that_shrinks_and_grows_while_it_is_read(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * 500_000)

    async def main() -> list[Any]:
        async with ioxide.open(path, "rb", 0) as file:
            seen: list[Any] = [await file.read(10)]
            os.truncate(path, 300_000)
            seen += [len(await file.readall()), await file.read(10)]
            with open(path, "ab") as writer:
                writer.write(b"b" * 5)
            seen += [await file.read(10), await file.tell()]
            return seen

    # What was read ahead before the file shrank is at most what one read of a buffered file would have taken.
    first, rest, end, grown, position = run(main())
    assert (first, end, grown) == (b"a" * 10, b"", b"b" * 5) and rest >= 299_990 and position >= 300_005


def test_past_four_gibibytes_in_a_sparse_file(run: Run, tmp_path: Path) -> None:
    place = (4 << 30) + 123

    async def main() -> tuple[Any, ...]:
        async with ioxide.open(tmp_path / "sparse", "w+b") as file:
            await file.pwrite(b"far away", place)
            await file.seek(place - 2)
            seen = await file.read(), await file.tell(), await file.pread(3, place), await file.pread(5, place + 8)
            await file.truncate(place + 3)
            return (*seen, await file.seek(0, os.SEEK_END))

    assert run(main()) == (b"\0\0far away", place + 8, b"far", b"", place + 3)


# Since 3.12 a fork beside any thread warns, and the pool has threads.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_files_of_its_own(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def in_child() -> int:
        async with ioxide.open(path, "rb") as file:
            first = await file.read(4)
        async with ioxide.open(tmp_path / "childs", "wb") as file:
            await file.write(b"c" * 100_000)
            await file.sync()
        return 0 if first == b"xxxx" else 1

    def child() -> int:
        codes: list[int] = []
        # Another thread: this one is inside the parent's loop.
        thread = threading.Thread(target=lambda: codes.append(run(in_child())))
        thread.start()
        thread.join(60)
        return codes[0] if codes else 2

    async def main() -> int:
        async with ioxide.open(path, "w+b") as file:
            await file.write(b"x" * 50_000)
            await file.flush()
            under_way = [asyncio.ensure_future(file.pwrite(b"y" * 100_000, 50_000 + number * 100_000)) for number in range(10)]
            await asyncio.sleep(0)
            identifier = os.fork()
            if identifier == 0:
                code = 3
                try:
                    code = child()
                finally:
                    os._exit(code)
            await asyncio.gather(*under_way)
            _, status = await ioxide.fs.in_pool(os.waitpid)(identifier, 0)
            return os.waitstatus_to_exitcode(status)

    assert run(main()) == 0
    assert path.read_bytes() == b"x" * 50_000 + b"y" * 1_000_000
    assert (tmp_path / "childs").stat().st_size == 100_000


def test_several_loops_at_once(loop_factory: LoopFactory, tmp_path: Path) -> None:
    async def work(number: int) -> bytes:
        for turn in range(20):
            async with ioxide.open(tmp_path / str(number), "ab") as file:
                await file.write(b"%d %d\n" % (number, turn) * 100)
                await file.sync(data_only=True)
        async with ioxide.open(tmp_path / str(number), "rb") as file:
            content: bytes = await file.read()
            return content

    contents: dict[int, bytes] = {}

    def in_thread(number: int) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            contents[number] = runner.run(work(number))

    threads = [threading.Thread(target=in_thread, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number in range(4):
        assert contents[number] == b"".join(b"%d %d\n" % (number, turn) * 100 for turn in range(20))


def test_a_cancelled_write_is_written_whole(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        async with ioxide.open(path, "wb", 0) as file:
            writing = asyncio.create_task(file.write(b"w" * 400_000))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            await file.write(b"next")

    run(main())
    written = path.read_bytes()
    assert written in (b"next", b"w" * 400_000 + b"next")


def test_closing_the_loop_ends_writes_whole(loop_factory: LoopFactory, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()

    async def main() -> None:
        file = await ioxide.open(path, "r+b")
        writing = file.pwrite(b"p" * MEBIBYTE, 0)
        under_way = asyncio.ensure_future(writing)
        await asyncio.sleep(0)  # it has begun
        under_way.cancel()
        descriptors.append(file)

    descriptors: list[Any] = []
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
    deadline = time.monotonic() + 60
    while path.stat().st_size < MEBIBYTE and time.monotonic() < deadline:
        time.sleep(0.001)  # a thread goes on after the loop
    descriptors[0].detach().close()
    assert path.read_bytes() == b"p" * MEBIBYTE


def test_many_operations_grow_neither_descriptors_nor_memory(run: Run, tmp_path: Path) -> None:
    """A tenth of what `benches/files.py --rows growth` does; a byte lost in each operation would be seen by both."""
    path = tmp_path / "file"

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    async def work(operations: int) -> None:
        for _ in range(operations // 4):
            async with ioxide.open(path, "wb") as file:
                await file.write(b"x" * 4096)
            async with ioxide.open(path, "rb") as file:
                assert len(await file.read()) == 4096
            async with ioxide.open(path) as text:
                assert [line async for line in text] == ["x" * 4096]

    async def main() -> tuple[int, int]:
        await work(1000)
        descriptors, memory = len(os.listdir("/proc/self/fd")), resident()
        await work(4000)
        return len(os.listdir("/proc/self/fd")) - descriptors, resident() - memory

    descriptors, memory = run(main())
    # One lost window would be 64 KiB for each of the 3,000 files.
    assert descriptors == 0 and memory < 4 * MEBIBYTE
