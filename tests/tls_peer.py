"""The other end of a TLS connection, driven by the test record by record over a plain socket; connections with it.

Invariants
1. Only Python's own `ssl` and the loop's `sock_*` methods are used, so that one end alone is under test.
2. Whatever waits gives up after recorder.TIMEOUT seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
from collections.abc import Callable
from typing import Any

from certificates import Authority
from recorder import TIMEOUT, Recorder


class TlsPeer:
    """An `SSLObject` over memory, and the socket that its records pass through."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, **options: Any) -> None:
        self.socket = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing, **options)

    async def flush(self) -> None:
        if data := self.outgoing.read():
            await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def pump(self, operation: Callable[..., Any], *arguments: Any) -> Any:
        async with asyncio.timeout(TIMEOUT):
            while True:
                try:
                    result = operation(*arguments)
                except ssl.SSLWantReadError:
                    await self.flush()
                    if data := await asyncio.get_running_loop().sock_recv(self.socket, 1 << 18):
                        self.incoming.write(data)
                    else:
                        self.incoming.write_eof()
                else:
                    await self.flush()
                    return result

    async def handshake(self) -> None:
        await self.pump(self.object.do_handshake)

    def encrypt(self, data: bytes) -> bytes:
        """The record of the data, not sent."""
        self.object.write(data)
        return self.outgoing.read()

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self.object.write(view) :]
            await self.flush()

    async def receive(self, count: int = sys.maxsize) -> bytes:
        """Exactly so many bytes, or what there is until close_notify."""
        data = b""
        while len(data) < count:
            try:
                more = await self.pump(self.object.read, min(count - len(data), 1 << 18))
            except ssl.SSLZeroReturnError:  # after a close_notify of our own
                break
            if not more:
                break
            data += more
        return data

    async def close_notify(self) -> None:
        """Sends close_notify, and waits for no answer."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.object.unwrap()
        await self.flush()


def socket_pair() -> tuple[socket.socket, socket.socket]:
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


async def both(connecting: Any, peer: TlsPeer) -> Any:
    """The transport, when both ends have done their handshake; without it, the peer is closed."""
    handshake = asyncio.ensure_future(peer.handshake())
    try:
        transport, _ = await connecting
        await handshake
    except BaseException:
        handshake.cancel()
        await asyncio.wait([handshake])
        if not handshake.cancelled():
            handshake.exception()
        peer.socket.close()
        raise
    return transport


async def connect(protocol: Recorder, authority: Authority, **options: Any) -> tuple[Any, TlsPeer]:
    """A TLS transport, client's side, with the protocol, and the other end of its connection."""
    near, far = socket_pair()
    context = authority.server_context()
    context.num_tickets = 0  # a socket that is closed with a ticket unread is reset
    peer = TlsPeer(far, context, server_side=True)
    loop = asyncio.get_running_loop()
    options = {"ssl": authority.client_context(), "server_hostname": "localhost", **options}
    return await both(loop.create_connection(lambda: protocol, sock=near, **options), peer), peer


async def serve(protocol: Recorder, authority: Authority, **options: Any) -> tuple[Any, TlsPeer]:
    """A TLS transport, server's side, with the protocol, and the other end of its connection."""
    near, far = socket_pair()
    peer = TlsPeer(far, authority.client_context(), server_hostname="localhost")
    loop = asyncio.get_running_loop()
    options = {"ssl": authority.server_context(), **options}
    return await both(loop.connect_accepted_socket(lambda: protocol, near, **options), peer), peer


async def finish(protocol: Recorder, peer: TlsPeer) -> None:
    if "connection_lost" not in protocol.names:
        protocol.transport.abort()
        await protocol.until_called("connection_lost")
    peer.socket.close()
