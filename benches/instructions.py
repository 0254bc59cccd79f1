"""The regression guard: how many instructions ioxide's module executes per operation, counted by valgrind's callgrind.

Compares a handful of workloads with the committed figures of instructions.json and fails where one has grown by more than
TOLERANCE. A processor that is busy with something else changes nothing: instructions are counted, not time.

usage: instructions.py                    compare (make guard)
       instructions.py --update           accept what is measured now as the new figures (make guard-update)
       instructions.py --row ROW          the counted process

Invariants:
 1. Only instructions of ioxide's own module count: the interpreter and the C library differ from machine to machine.
 2. A process that only begins and ends is counted, too, and taken off each workload's.
 3. A workload is one process with one thread and waits for nothing outside, so that its count repeats.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import functools
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import callgrind
import loops
import report
import task_rows

FIGURES = Path(__file__).with_name("instructions.json")
TOLERANCE = 0.05
OPERATIONS = 4000
BATCH = 100
MODULE = "_ioxide."
MESSAGE = b"m" * 1024
NOTHING = "nothing"


async def echo_by_protocol(operations: int) -> None:
    """Two protocols on the two ends of a socket pair send a message to and fro."""
    loop = asyncio.get_running_loop()
    finished = loop.create_future()

    class Player(asyncio.Protocol):
        left = operations

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: asyncio.Transport = transport  # type: ignore[assignment]

        def data_received(self, data: bytes) -> None:
            self.left -= 1
            if self.left:
                self.transport.write(data)
            elif not finished.done():
                finished.set_result(None)

    near, far = socket.socketpair()
    first, _ = await loop.create_connection(Player, sock=near)
    second, _ = await loop.create_connection(Player, sock=far)
    first.write(MESSAGE)
    await finished
    first.close()
    second.close()
    await asyncio.sleep(0)


async def echo_by_streams(operations: int) -> None:
    near, far = socket.socketpair()

    async def play(sock: socket.socket, begins: bool) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        if begins:
            writer.write(MESSAGE)
        for _ in range(operations):
            writer.write(await reader.readexactly(len(MESSAGE)))
            await writer.drain()
        writer.close()

    await asyncio.gather(play(near, True), play(far, False))


async def nothing(operations: int) -> None:
    return None


def row(name: str, batch: int = BATCH) -> Callable[[int], Awaitable[None]]:
    return functools.partial(task_rows.ROWS[name].run, batch=batch)


# What one operation is, the functions say.
ROWS: dict[str, Callable[[int], Awaitable[None]]] = {
    **{
        name: row(name)
        for name in ("sleep(0)", "spawn+gather", "contended lock", "event fan-out", "bounded queue", "task group", "wait_for")
    },
    "call_soon chain": row("call_soon chain"),
    "call_later+cancel": row("call_later+cancel", 1000),
    "echo by protocol": echo_by_protocol,
    "echo by streams": echo_by_streams,
}


def count(row: str) -> int:
    with tempfile.TemporaryDirectory() as directory:
        profile = os.path.join(directory, "profile")
        tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}"]
        command = [*tool, sys.executable, __file__, "--row", row]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        if result.returncode:
            raise SystemExit(f"{row}: ended with code {result.returncode}\n{result.stderr[-2000:]}")
        with open(profile) as lines:
            return callgrind.own_instructions(lines, MODULE)


def measure() -> dict[str, int]:
    """{row: instructions per operation}"""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        idle, *costs = pool.map(count, [NOTHING, *ROWS])
        return {row: round((cost - idle) / OPERATIONS) for row, cost in zip(ROWS, costs, strict=True)}


def compare(now: dict[str, int], before: dict[str, int]) -> int:
    worse = callgrind.grown(now, before, TOLERANCE)
    lines = [
        [row, str(before.get(row, "none")), str(cost), f"GROWN by more than {TOLERANCE:.0%}" if row in worse else ""]
        for row, cost in now.items()
    ]
    print(report.table(["instructions per operation", "before", "now", ""], lines))
    if worse:
        print(f"{', '.join(worse)}: more instructions than before. If that is meant: make guard-update.", file=sys.stderr)
    return 1 if worse else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write the figures instead of comparing with them")
    parser.add_argument("--row", help="be the counted process")
    options = parser.parse_args()
    if options.row:
        work = ROWS.get(options.row, nothing)
        loops.run(loops.SUBJECT, lambda: work(OPERATIONS))
        return 0
    if shutil.which("valgrind") is None:
        print("valgrind is missing: install it by that name", file=sys.stderr)
        return 1
    version = ".".join(platform.python_version_tuple()[:2])
    known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    now = measure()
    if options.update:
        FIGURES.write_text(json.dumps({**known, version: now}, indent=2, sort_keys=True) + "\n")
        print(f"{FIGURES.name} has the figures of Python {version} now: commit it with the reason")
        return 0
    if version not in known:
        print(f"{FIGURES.name} has no figures of Python {version}; it has those of {', '.join(known) or 'none'}")
        return 1
    return compare(now, known[version])


if __name__ == "__main__":
    sys.exit(main())
