"""Claim: loop.sock_sendfile and loop.sendfile move a file at least as fast as socket.sendfile does.

Sends a cached file over a loopback connection to a process that throws it away.

usage: sendfile.py NAME CASE MEBIBYTES        the measured process

Invariants:
 1. Every way sends the same file to the same kind of reader; the reader counts the bytes.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import tempfile
import time
from typing import BinaryIO

import loops
import machine
import worker
from suite import Context, Figures, Goal, Workload, each

LIMIT = "socket.sendfile"
MEBIBYTES = 100
CASES = ("sock_sendfile", "sendfile of a transport")


def drain(listener: socket.socket, size: int) -> None:
    """The reader's process: ends well when all bytes have come."""
    os.sched_setaffinity(0, {machine.CLIENT_CORE})
    connection, _ = listener.accept()
    buffer = bytearray(1 << 20)
    with connection:
        while size > 0 and (received := connection.recv_into(buffer)):
            size -= received
    os._exit(0 if size == 0 else 1)


async def send_by_loop(sock: socket.socket, file: BinaryIO, case: str) -> None:
    loop = asyncio.get_running_loop()
    sock = sock.dup()
    sock.setblocking(False)
    if case == CASES[0]:
        await loop.sock_sendfile(sock, file)
        sock.close()
        return
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=sock)
    await loop.sendfile(transport, file)
    transport.close()


def send(name: str, sock: socket.socket, file: BinaryIO, case: str) -> None:
    if name == LIMIT:
        sock.sendfile(file)
    else:
        loops.run(name, lambda: send_by_loop(sock, file, case))


def subject(name: str, case: str, size: int) -> None:
    """Seconds from the first byte to the moment when the reader has all of them, and the sender's CPU time."""
    with tempfile.TemporaryFile() as file, socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(size >> 20):
            file.write(bytes(range(256)) * 4096)
        file.flush()
        if name != LIMIT:
            loops.make_loop(name).close()  # what its import costs is not measured
        reader = os.fork()
        if not reader:
            drain(listener, size)
        with socket.create_connection(listener.getsockname()) as sock:
            file.seek(0)
            wall, cpu = time.perf_counter(), time.process_time()
            send(name, sock, file, case)
            cpu = time.process_time() - cpu
            _, status = os.waitpid(reader, 0)
        wall = time.perf_counter() - wall
    if status:
        raise SystemExit("not all bytes arrived")
    print(json.dumps({"cpu_ns": cpu * 1e9 / (size >> 20), "wall_ms": wall * 1e3}), flush=True)


def measure(name: str, context: Context, case: str) -> Figures:
    return worker.line_of(__file__, name, case, str(context.operations(MEBIBYTES) << 20))


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
