"""Descriptors that are closed while others are opened: each is closed once, and nothing reaches a wrong connection.

A canary, an exchange over one connection, goes on while connects, accepts, TLS handshakes and pipes are begun and
cancelled at every point there is, so that the kernel hands out freed numbers again and again. Whoever closed, watched or
wrote to a number that somebody else owns by then would be heard by the canary, or by one of the victims, which all
check every byte.

On ioxide alone: asyncio leaves connections that nobody awaits any more to finalizers, some of which fail.

Invariants
1. Deterministic: the points of cancelling are turns of the loop, counted, not times.
2. At the end the process has the descriptors that it had at the beginning.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

import pytest

import ioxide

TURNS = 8  # a victim is cancelled after 0, 1, … turns of the loop
ROUNDS = 12


def open_descriptors() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the directory itself
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


class Canary:
    """An exchange that notices every byte that is not its own, and every byte of it that is missing."""

    def __init__(self) -> None:
        self.exchanges = 0
        self.is_over = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(line)
        finally:
            writer.close()

    async def sing(self, address: Any) -> None:
        reader, writer = await asyncio.open_connection(*address)
        while not self.is_over:
            line = b"canary %d\n" % self.exchanges
            writer.write(line)
            assert await asyncio.wait_for(reader.readline(), 20) == line
            self.exchanges += 1
        writer.close()
        await writer.wait_closed()


class Victim(asyncio.Protocol):
    """A connection on which nobody has anything to say but its own greeting."""

    heard: ClassVar[list[bytes]] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)


async def connects(server: Any) -> None:
    transport, _ = await asyncio.get_running_loop().create_connection(Victim, *server)
    transport.abort()


async def races(server: Any) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(Victim, *server, happy_eyeballs_delay=0.0001)
    transport.close()


async def accepts(server: Any) -> None:
    loop = asyncio.get_running_loop()
    own = await loop.create_server(Victim, "127.0.0.1", 0)
    try:
        await connects(own.sockets[0].getsockname())
    finally:
        own.close()


async def handshakes(server: Any) -> None:
    """With a server that speaks no TLS: it is silent, and never ends."""
    context = ssl.create_default_context()
    await asyncio.get_running_loop().create_connection(Victim, *server, ssl=context, server_hostname="localhost")


async def raw_sockets(server: Any) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, server)
        await loop.sock_recv(sock, 1)


async def pipes(server: Any) -> None:
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", 0) as source, os.fdopen(writing, "wb", 0) as sink:
        reader, _ = await loop.connect_read_pipe(Victim, source)
        try:
            writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, sink)
            writer.abort()
        finally:
            reader.close()
            await asyncio.sleep(0)
            await asyncio.sleep(0)


KINDS: list[Callable[[Any], Coroutine[Any, Any, None]]] = [connects, races, accepts, handshakes, raw_sockets, pipes]


async def flood(kind: Callable[[Any], Coroutine[Any, Any, None]], address: Any) -> int:
    """Begins many and cancels each after another number of turns; returns how many were cancelled."""
    cancelled = 0
    for _ in range(ROUNDS):
        tasks = [asyncio.ensure_future(kind(address)) for _ in range(TURNS)]
        for task in tasks:
            task.cancel()
            await asyncio.sleep(0)
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            cancelled += isinstance(outcome, asyncio.CancelledError)
            assert outcome is None or isinstance(outcome, asyncio.CancelledError | OSError), outcome
    return cancelled


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_cancelled_in_every_turn(kind: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        Victim.heard = []
        canary = Canary()
        loop = asyncio.get_running_loop()
        nest = await asyncio.start_server(canary.serve, "127.0.0.1", 0)
        silent = await loop.create_server(Victim, "127.0.0.1", 0)
        song = asyncio.ensure_future(canary.sing(nest.sockets[0].getsockname()))
        while not canary.exchanges:
            await asyncio.sleep(0)
        before = canary.exchanges
        assert await flood(kind, silent.sockets[0].getsockname()) > 0
        assert canary.exchanges > before, "the canary is silent"
        canary.is_over = True
        await song
        # A handshake's first message is the only thing that the silent server may hear.
        assert all(data[:1] == b"\x16" for data in Victim.heard), Victim.heard
        nest.close()
        silent.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)

    before = open_descriptors()
    with warnings.catch_warnings():
        # Whether an abandoned connection is closed with a warning or without is not what this is about.
        warnings.simplefilter("ignore", ResourceWarning)
        ioxide.run(main())
        gc.collect()
    assert open_descriptors().keys() == before.keys()
