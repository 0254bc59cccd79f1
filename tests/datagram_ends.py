"""Datagram protocols that note what they hear, and plain sockets for the other end, for the tests of datagram transports.

Invariants
1. Nothing waits for a time: a test waits for a call of the protocol, or for a datagram.
2. The other end is a plain socket on the loopback interface.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

TIMEOUT = 20  # seconds; only a test that fails waits so long


class Datagrams(asyncio.DatagramProtocol):
    """Notes every call with its arguments, raises or returns what the test asked for, and can be waited for."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.calls: list[tuple[str, Any]] = []
        self.transport: Any = None
        self.changed = asyncio.Event()

    def note(self, name: str, argument: Any = None) -> None:
        self.calls.append((name, argument))
        self.changed.set()
        answer = self.answers.get(name)
        if isinstance(answer, BaseException):
            raise answer
        if callable(answer):
            answer(self)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.note("connection_made", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.note("datagram_received", (data, addr))

    def error_received(self, exc: Exception) -> None:
        self.note("error_received", exc)

    def pause_writing(self) -> None:
        self.note("pause_writing")

    def resume_writing(self) -> None:
        self.note("resume_writing")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.note("connection_lost", exc)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    @property
    def received(self) -> list[bytes]:
        return [argument[0] for name, argument in self.calls if name == "datagram_received"]

    def argument(self, name: str) -> Any:
        return dict(self.calls)[name]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def until_called(self, name: str) -> Any:
        await self.until(lambda: name in self.names)
        return self.argument(name)


async def endpoint(protocol: Datagrams, **options: Any) -> Any:
    """The transport of a new endpoint, on the loopback interface unless the options say otherwise."""
    options = options or {"local_addr": ("127.0.0.1", 0)}
    transport, made = await asyncio.get_running_loop().create_datagram_endpoint(lambda: protocol, **options)
    assert made is protocol
    return transport


def plain(family: int = socket.AF_INET, address: Any = ("127.0.0.1", 0)) -> socket.socket:
    """A plain non-blocking socket of datagrams."""
    plain = socket.socket(family, socket.SOCK_DGRAM)
    plain.bind(address)
    plain.setblocking(False)
    return plain


async def hear(peer: socket.socket) -> bytes:
    async with asyncio.timeout(TIMEOUT):
        return await asyncio.get_running_loop().sock_recv(peer, 1 << 17)


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


async def finish(protocol: Datagrams, *peers: socket.socket) -> None:
    protocol.transport.abort()
    await protocol.until_called("connection_lost")
    for peer in peers:
        peer.close()
