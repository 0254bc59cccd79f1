"""Claim: loop.sock_sendfile and loop.sendfile move a file at least as fast as socket.sendfile does.

Sends a cached file over a loopback connection to a process that throws it away.

usage: sendfile.py NAME CASE TIMES        the measured process

Invariants:
 1. Every way sends the same file to the same kind of reader; the reader counts the bytes.
 2. Sender and reader share a core, so that the figure is the work of both. On two cores one and the same call of the kernel's,
    which sends the whole file, takes from 10 to 50 ms from one time to the next, whoever makes it.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import tempfile
import time
from typing import BinaryIO, NoReturn

import loops
import worker
from suite import Context, Figures, Goal, Workload, each

LIMIT = "socket.sendfile"
SIZE = 100 << 20
TIMES = 10
CASES = ("sock_sendfile", "sendfile of a transport")


def drain(listener: socket.socket, size: int, finished: int) -> NoReturn:
    """The reader's process: tells when all bytes have come, by the clock that all processes share."""
    connection, _ = listener.accept()
    buffer = bytearray(1 << 20)
    with connection:
        while size > 0 and (received := connection.recv_into(buffer)):
            size -= received
    if size == 0:
        os.write(finished, str(time.monotonic_ns()).encode())
    os._exit(0)


class Sending:
    """When it began, and the sender's CPU time."""

    def __enter__(self) -> Sending:
        self.began, self._cpu = time.monotonic_ns(), time.process_time_ns()
        return self

    def __exit__(self, *exception: object) -> None:
        self.cpu = time.process_time_ns() - self._cpu


async def send_by_loop(sock: socket.socket, file: BinaryIO, case: str) -> Sending:
    loop = asyncio.get_running_loop()
    sock = sock.dup()
    sock.setblocking(False)
    if case == CASES[0]:
        with sock, Sending() as sending:
            await loop.sock_sendfile(sock, file)
        return sending
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=sock)
    with Sending() as sending:
        await loop.sendfile(transport, file)
    transport.close()
    return sending


def send(name: str, sock: socket.socket, file: BinaryIO, case: str) -> Sending:
    if name == LIMIT:
        with Sending() as sending:
            sock.sendfile(file)
        return sending
    return loops.run(name, lambda: send_by_loop(sock, file, case))


def transfer(name: str, case: str, file: BinaryIO) -> tuple[int, int]:
    """Nanoseconds from the first byte to the moment when the reader has all of them, and of the sender's CPU time."""
    hear, tell = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if not os.fork():
            drain(listener, SIZE, tell)
        os.close(tell)
        with socket.create_connection(listener.getsockname()) as sock:
            file.seek(0)
            sending = send(name, sock, file, case)
        finished = os.read(hear, 64)
    os.close(hear)
    os.wait()
    if not finished:
        raise SystemExit("not all bytes arrived")
    return int(finished) - sending.began, sending.cpu


def subject(name: str, case: str, times: int) -> None:
    with tempfile.TemporaryFile() as file:
        for _ in range(SIZE >> 20):
            file.write(bytes(range(256)) * 4096)
        file.flush()
        wall, cpu = zip(*[transfer(name, case, file) for _ in range(times)], strict=True)
    mebibytes = times * (SIZE >> 20)
    print(json.dumps({"cpu_ns": sum(cpu) / mebibytes, "wall_ms": sum(wall) / times / 1e6}), flush=True)


def measure(name: str, context: Context, case: str) -> Figures:
    return worker.line_of(__file__, name, case, str(context.operations(TIMES)))


WORKLOADS = [
    Workload(
        "sendfile",
        "A file is sent at least as fast as by socket.sendfile.",
        CASES,
        each(measure),
        limits=(LIMIT,),
        baseline=LIMIT,
        figure="wall_ms",
        unit="milliseconds from the first byte to the last, which the reader has",
        details=("cpu_ns",),
        goals=(Goal(LIMIT, 1.0),),
        short=None,
    ),
]

if __name__ == "__main__":
    subject(sys.argv[1], sys.argv[2], int(sys.argv[3]))
