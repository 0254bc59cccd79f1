"""The echo servers that echo.py, tls.py and memory.py measure: one loop, one way of writing the server, one process.

usage: echo_server.py LOOP KIND (tcp | udp | unix PATH)       prints "listening PORT" and serves until it is killed

What is measured about them belongs to the scripts that start them.

Invariants:
 1. Every kind sends back each byte once and in order, and stops reading while its peer does not read.
 2. TCP_NODELAY is set on every connection in every kind, as asyncio's transports do by themselves.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable

import loops

HOST = "127.0.0.1"
CHUNK = 64 * 1024
BACKLOG = 4096
EXACTLY = 1024  # bytes of a message for readexactly()


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class BufferedEcho(asyncio.BufferedProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.buffer = bytearray(CHUNK)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        # The slice is a copy: the next read writes into the buffer while the transport may still hold what it sends.
        self.transport.write(self.buffer[:nbytes])

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class DatagramEcho(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data, addr)


async def echo_streams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    except ConnectionResetError:
        pass  # a client that goes away with unread bytes resets the connection: the end of an echo all the same
    finally:
        writer.close()


async def echo_lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
    except ConnectionResetError:
        pass  # as in echo_streams
    finally:
        writer.close()


async def echo_exactly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            writer.write(await reader.readexactly(EXACTLY))
            await writer.drain()
    except (ConnectionResetError, asyncio.IncompleteReadError):
        pass  # as in echo_streams; the end of the stream
    finally:
        writer.close()


async def echo_sock(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with connection:
        try:
            while data := await loop.sock_recv(connection, CHUNK):
                await loop.sock_sendall(connection, data)
        except ConnectionResetError:
            pass  # as in echo_streams


def listen(address: list[str]) -> socket.socket:
    """Listens before any loop has the socket, so the same way for all of them, and announces the port."""
    if address[0] == "udp":
        return bind()
    is_tcp = address[0] == "tcp"
    # With its protocol named, as by create_server(host, port): asyncio sets TCP_NODELAY on no other.
    family, protocol = (socket.AF_INET, socket.IPPROTO_TCP) if is_tcp else (socket.AF_UNIX, 0)
    listener = socket.socket(family, socket.SOCK_STREAM, protocol)
    listener.bind((HOST, 0) if is_tcp else address[1])
    listener.listen(BACKLOG)
    listener.setblocking(False)
    port = listener.getsockname()[1] if is_tcp else 0
    print(f"listening {port}", flush=True)
    return listener


def bind() -> socket.socket:
    """As listen(), for datagrams."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind((HOST, 0))
    print(f"listening {bound.getsockname()[1]}", flush=True)
    return bound


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def serve_sock(listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    serving: set[asyncio.Task[None]] = set()
    while True:
        connection, _ = await loop.sock_accept(listener)
        connection.setblocking(False)
        if connection.family == socket.AF_INET:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = asyncio.create_task(echo_sock(connection))
        serving.add(task)
        task.add_done_callback(serving.discard)


def serve_protocol(factory: Callable[[], asyncio.BaseProtocol]) -> Callable[[socket.socket], Awaitable[None]]:
    async def serve(listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        create = loop.create_server if listener.family == socket.AF_INET else loop.create_unix_server
        server = await create(factory, sock=listener, backlog=BACKLOG)  # no `async with`: rsloop's has none
        await forever()  # and not serve_forever(), after which rloop refuses connections
        server.close()

    return serve


async def serve_datagrams(bound: socket.socket) -> None:
    await asyncio.get_running_loop().create_datagram_endpoint(DatagramEcho, sock=bound)
    await forever()


async def echo_datagrams(bound: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    bound.setblocking(False)
    while True:
        data, address = await loop.sock_recvfrom(bound, CHUNK)
        await loop.sock_sendto(bound, data, address)


def serve_streams(echo: Callable[..., Awaitable[None]]) -> Callable[[socket.socket], Awaitable[None]]:
    async def serve(listener: socket.socket) -> None:
        start = asyncio.start_server if listener.family == socket.AF_INET else asyncio.start_unix_server
        server = await start(echo, sock=listener, backlog=BACKLOG)
        await forever()  # as above
        server.close()

    return serve


KINDS: dict[str, Callable[[socket.socket], Awaitable[None]]] = {
    "protocol": serve_protocol(Echo),
    "buffered protocol": serve_protocol(BufferedEcho),
    "streams": serve_streams(echo_streams),
    "sock_recv/sock_sendall": serve_sock,
}
# The ways to read from a stream.
STREAM_KINDS: dict[str, Callable[[socket.socket], Awaitable[None]]] = {
    "streams read": serve_streams(echo_streams),
    "streams readline": serve_streams(echo_lines),
    "streams readexactly": serve_streams(echo_exactly),
}


DATAGRAM_KINDS: dict[str, Callable[[socket.socket], Awaitable[None]]] = {
    "datagrams": serve_datagrams,
    "sock_recvfrom/sock_sendto": echo_datagrams,
}


async def main(kind: str, address: list[str]) -> None:
    kinds = DATAGRAM_KINDS if address[0] == "udp" else KINDS | STREAM_KINDS
    await kinds[kind](listen(address))


if __name__ == "__main__":
    loops.run(sys.argv[1], lambda: main(sys.argv[2], sys.argv[3:]))
