"""Claim: loop.sock_sendfile and loop.sendfile move a file at least as fast as socket.sendfile does.

Sends the same cached file over a loopback connection to a thread that throws it away, way by way in turn, and prints the
best and the median time of each and its ratio to socket.sendfile's in the same round.

Invariants:
 1. Every way sends the same file to the same kind of reader; the reader counts the bytes.
 2. The ways alternate, so that other load is shared; a ratio compares two runs of one round.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO

import loops


def drain(listener: socket.socket, count: list[int]) -> None:
    connection, _ = listener.accept()
    buffer = bytearray(1 << 20)
    with connection:
        while received := connection.recv_into(buffer):
            count[0] += received


def timed(file: BinaryIO, size: int, send: Callable[[socket.socket, BinaryIO], Any]) -> float:
    """Seconds from the first byte to the moment when the reader has all of them."""
    count = [0]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reader = threading.Thread(target=drain, args=(listener, count))
        reader.start()
        with socket.create_connection(listener.getsockname()) as sock:
            file.seek(0)
            started = time.perf_counter()
            send(sock, file)
        reader.join()
        took = time.perf_counter() - started
    if count[0] != size:
        raise SystemExit(f"{count[0]} bytes of {size} arrived")
    return took


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
    with tempfile.TemporaryFile() as file:
        file.write(bytes(range(256)) * (size // 256))
        file.flush()
        for _ in range(options.rounds):
            for way, send in ways.items():
                times[way].append(timed(file, size, send))
    for way, taken in times.items():
        ratio = statistics.median(mine / base for mine, base in zip(taken, times["socket.sendfile"], strict=True))
        print(f"{way:24} best {min(taken) * 1e3:7.1f} ms  median {statistics.median(taken) * 1e3:7.1f} ms  x{ratio:.2f}")


if __name__ == "__main__":
    main()
