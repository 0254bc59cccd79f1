"""A protocol that notes what a transport does to it, and the other end of the transport's connection.

Invariants
1. Nothing waits for a time: a test waits for a call of the protocol, or for bytes.
2. The other end is a plain socket, so that only one end of a connection is under test.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any

TIMEOUT = 20  # seconds; only a test that fails waits so long
MEGABYTE = bytes(range(256)) * 4096


class Recorder(asyncio.Protocol):
    """Notes every call with its argument, raises or returns what the test asked for, and can be waited for."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.calls: list[tuple[str, Any]] = []
        self.transport: Any = None
        self.changed = asyncio.Event()

    def note(self, name: str, argument: Any = None) -> Any:
        self.calls.append((name, argument))
        self.changed.set()
        answer = self.answers.get(name)
        if isinstance(answer, BaseException):
            raise answer
        return answer(self) if callable(answer) else answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.note("connection_made", transport)

    def data_received(self, data: bytes) -> None:
        self.note("data_received", data)

    def eof_received(self) -> Any:
        return self.note("eof_received")

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
    def received(self) -> bytes:
        return b"".join(argument for name, argument in self.calls if name == "data_received")

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


class BufferedRecorder(Recorder, asyncio.BufferedProtocol):
    """A recorder that lends its own buffer."""

    def __init__(self, buffer: Any, **answers: Any) -> None:
        super().__init__(**answers)
        self.buffer = buffer
        self.data = b""

    def get_buffer(self, sizehint: int) -> Any:
        self.note("get_buffer", sizehint)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data += bytes(self.buffer[:nbytes])
        self.note("buffer_updated", nbytes)


class Reports(list[dict[str, Any]]):
    """What reached the loop's exception handler."""

    def __init__(self) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: self.append(context))


async def connect(protocol: Recorder, *, buffer: int | None = None) -> tuple[Any, socket.socket]:
    """A transport with the protocol, and the other end of its connection as a plain non-blocking socket."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    if buffer is not None:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, sock=near)
    return transport, far


async def receive(peer: socket.socket, count: int) -> bytes:
    """Exactly so many bytes, or what there is until the end of the stream."""
    loop = asyncio.get_running_loop()
    data = b""
    async with asyncio.timeout(TIMEOUT):
        while len(data) < count:
            more = await loop.sock_recv(peer, min(count - len(data), 1 << 18))
            if not more:
                break
            data += more
    return data


async def receive_all(peer: socket.socket) -> bytes:
    return await receive(peer, sys.maxsize)


async def finish(protocol: Recorder, *peers: socket.socket) -> None:
    if "connection_lost" not in protocol.names:
        protocol.transport.abort()
        await protocol.until_called("connection_lost")
    for peer in peers:
        peer.close()
