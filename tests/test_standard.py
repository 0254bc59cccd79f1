"""`ioxide.stdin`, `stdout` and `stderr`, in programs of their own: through pipes, files and terminals, on both loops."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LOOPS = ("ioxide.new_event_loop", "asyncio.SelectorEventLoop")


@pytest.fixture(params=LOOPS)
def head(request: pytest.FixtureRequest) -> Iterator[str]:
    """What each program begins with; it ends with the coroutine function `main`."""
    yield f"import asyncio, ioxide\nfactory = {request.param}\n"


TAIL = "\nasyncio.Runner(loop_factory=factory).run(main())\n"


def start(program: str, **streams: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUTF8": "1"}
    return subprocess.Popen([sys.executable, "-c", program], env=environment, **streams)  # type: ignore[call-overload, no-any-return]


def outcome(program: str, given: bytes | None, **streams: object) -> tuple[int, bytes, bytes]:
    with start(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **streams) as child:
        out, err = child.communicate(given, timeout=60)
        return child.returncode, out, err


def test_lines_through_pipes(head: str) -> None:
    program = head + """
async def main():
    async for line in ioxide.stdin:
        await ioxide.stdout.write(line.upper())
    await ioxide.stdout.flush()
    await ioxide.stderr.write("end")
""" + TAIL
    given = "one\r\ntwo é\nno end".encode()
    assert outcome(program, given, stdin=subprocess.PIPE) == (0, "ONE\nTWO É\nNO END".encode(), b"end")


def test_bytes_and_sizes(head: str, tmp_path: Path) -> None:
    program = head + """
async def main():
    read = [await ioxide.stdin_bytes.readline(), await ioxide.stdin_bytes.read(3), await ioxide.stdin_bytes.read()]
    await ioxide.stdout_bytes.write(repr([*read, await ioxide.stdin_bytes.read()]).encode())
    await ioxide.stdout_bytes.flush()
""" + TAIL
    expected = (0, b"[b'line\\r\\n', b'abc', b'd\\xff', b'']".replace(b"\xff", b"\\xff"), b"")
    assert outcome(program, b"line\r\nabcd\xff", stdin=subprocess.PIPE) == expected
    (tmp_path / "input").write_bytes(b"line\r\nabcd\xff")
    with open(tmp_path / "input", "rb") as file:
        assert outcome(program, None, stdin=file) == expected


def test_a_cancelled_read_loses_nothing_and_does_not_hold_up_the_end(head: str) -> None:
    program = head + """
async def main():
    try:
        await asyncio.wait_for(ioxide.stdin.readline(), 0.01)
    except asyncio.TimeoutError:
        print("waited", flush=True)
    print(repr(await ioxide.stdin.readline()), flush=True)
    reading = asyncio.create_task(ioxide.stdin.readline())
    await asyncio.sleep(0)
    reading.cancel()
""" + TAIL
    with start(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(b"begun, ")
        child.stdin.flush()
        assert child.stdout.readline() == b"waited\n"
        child.stdin.write(b"ended\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"'begun, ended\\n'\n"
        # Standard input is still open: nobody waits for it.
        assert child.wait(60) == 0


def test_overlapping_readers_each_get_a_line(head: str) -> None:
    program = head + """
async def main():
    print(sorted(await asyncio.gather(*(ioxide.stdin.readline() for _ in range(3)))))
""" + TAIL
    assert outcome(program, b"a\nb\n", stdin=subprocess.PIPE) == (0, b"['', 'a\\n', 'b\\n']\n", b"")


def test_a_terminal(head: str) -> None:
    program = head + """
async def main():
    assert ioxide.stdin.isatty()
    ticks = 0
    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.001)
    ticking = asyncio.create_task(tick())
    await ioxide.stdout.write("name? ")
    await ioxide.stdout.flush()
    name = await ioxide.stdin.readline()
    ticking.cancel()
    await ioxide.stdout.write(f"hello {name.strip()}, {ticks > 0}")
    await ioxide.stdout.flush()
""" + TAIL
    ours, theirs = pty.openpty()
    try:
        with start(program, stdin=theirs, stdout=theirs) as child:
            heard = read_until(ours, b"name? ")
            os.write(ours, b"Ada\n")
            heard += read_until(ours, b"True")
            assert child.wait(60) == 0
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"hello Ada, True" in heard


def read_until(descriptor: int, wanted: bytes) -> bytes:
    heard = b""
    while wanted not in heard:
        heard += os.read(descriptor, 1024)
    return heard
