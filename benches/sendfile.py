"""Claim: loop.sock_sendfile and loop.sendfile move a file at least as fast as socket.sendfile does.

Sends the same cached file over a loopback connection to a process that throws it away, way by way in turn, and prints the
best and the median time of each, its ratio to socket.sendfile's in the same round, and the CPU time of the sender.

Invariants:
 1. Every way sends the same file to the same kind of reader; the reader counts the bytes.
 2. The ways alternate, so that other load is shared; a ratio compares two runs of one round.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any, BinaryIO

import loops


def drain(listener: socket.socket, size: int) -> None:
    """The reader's process: ends well when all bytes have come."""
    connection, _ = listener.accept()
    buffer = bytearray(1 << 20)
    with connection:
        while size > 0 and (received := connection.recv_into(buffer)):
            size -= received
    os._exit(0 if size == 0 else 1)


def timed(file: BinaryIO, size: int, send: Callable[[socket.socket, BinaryIO], Any]) -> tuple[float, float]:
    """Seconds from the first byte to the moment when the reader has all of them, and the sender's CPU time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reader = os.fork()
        if not reader:
            drain(listener, size)
        with socket.create_connection(listener.getsockname()) as sock:
            file.seek(0)
            started, used = time.perf_counter(), time.process_time()
            send(sock, file)
            used = time.process_time() - used
            _, status = os.waitpid(reader, 0)
        took = time.perf_counter() - started
    if status:
        raise SystemExit("not all bytes arrived")
    return took, used


def by_loop(name: str, through_transport: bool) -> Callable[[socket.socket, BinaryIO], Any]:
    def send(sock: socket.socket, file: BinaryIO) -> None:
        sock = sock.dup()
        sock.setblocking(False)

        async def main() -> None:
            loop = asyncio.get_running_loop()
            if not through_transport:
                await loop.sock_sendfile(sock, file)
                sock.close()
                return
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=sock)
            await loop.sendfile(transport, file)
            transport.close()

        loops.run(name, main)

    return send


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    ways: dict[str, Callable[[socket.socket, BinaryIO], Any]] = {"socket.sendfile": lambda sock, file: sock.sendfile(file)}
    for name in ("asyncio", "ioxide"):
        ways[f"{name} sock_sendfile"] = by_loop(name, False)
        ways[f"{name} sendfile"] = by_loop(name, True)
    size = options.megabytes << 20
    times: dict[str, list[float]] = {way: [] for way in ways}
    used: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryFile() as file:
        file.write(bytes(range(256)) * (size // 256))
        file.flush()
        for _ in range(options.rounds):
            for way, send in ways.items():
                taken, cpu = timed(file, size, send)
                times[way].append(taken)
                used[way].append(cpu)
    for way, taken in times.items():
        ratio = statistics.median(mine / base for mine, base in zip(taken, times["socket.sendfile"], strict=True))
        best, median, cpu = (f"{seconds * 1e3:6.1f}" for seconds in (min(taken), statistics.median(taken), min(used[way])))
        print(f"{way:24} best {best} ms  median {median} ms  x{ratio:.2f}  CPU, best {cpu} ms")


if __name__ == "__main__":
    main()
