"""Servers: create_server and the Server object."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import gc
import socket
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import ioxide
from recorder import Recorder
from serving import dial, outcome, serve, until

Run = Callable[..., Any]

KNOWS_CLIENTS = sys.version_info >= (3, 13)


def test_classes(run: Run) -> None:
    async def main() -> None:
        server, _ = await serve()
        assert isinstance(server, asyncio.Server) and isinstance(server, asyncio.AbstractServer)
        assert isinstance(server, asyncio.base_events.Server)
        assert server.get_loop() is asyncio.get_running_loop()
        server.note = 1
        assert weakref.ref(server)() is server
        assert repr(server) == f"<Server sockets={server.sockets!r}>"
        server.close()
        assert repr(server) == "<Server sockets=()>" and server.sockets == ()
        await server.wait_closed()

    run(main())
    assert issubclass(ioxide.Server, asyncio.Server)


def test_a_server_can_be_made_and_derived_from_by_hand(loop: asyncio.AbstractEventLoop) -> None:
    kind: Any = ioxide.Server if isinstance(loop, ioxide.EventLoop) else asyncio.Server

    class Named(kind):  # type: ignore[misc]
        def _attach(self, *arguments: Any) -> None:
            self.attached = True
            super()._attach(*arguments)

    async def main() -> None:
        protocol = Recorder()
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        server = Named(loop, [listening], lambda: protocol, None, 5, None)
        assert not server.is_serving()
        await server.start_serving()
        assert server.is_serving()
        peer = await dial(server)
        await protocol.until_called("connection_made")
        assert server.attached
        peer.close()
        await protocol.until_called("connection_lost")
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


def test_a_connection_from_beginning_to_end(run: Run) -> None:
    async def main() -> list[str]:
        server, protocols = await serve()
        assert server.is_serving()
        peer = await dial(server)
        await until(lambda: protocols and protocols[0].calls)
        transport = protocols[0].transport
        assert transport.get_extra_info("peername") == peer.getsockname()
        assert transport.get_extra_info("sockname") == server.sockets[0].getsockname()
        await asyncio.get_running_loop().sock_sendall(peer, b"request")
        assert await protocols[0].until_called("data_received") == b"request"
        peer.close()
        await protocols[0].until_called("connection_lost")
        server.close()
        await server.wait_closed()
        return [name for name, _ in protocols[0].calls]

    assert run(main()) == ["connection_made", "data_received", "eof_received", "connection_lost"]


def test_many_connections_at_once_are_all_accepted(run: Run) -> None:
    async def main() -> int:
        server, protocols = await serve(backlog=200)
        peers = [await dial(server) for _ in range(150)]
        await until(lambda: sum(bool(protocol.calls) for protocol in protocols) == 150)
        for peer in peers:
            peer.close()
        await until(lambda: all(protocol.calls[-1][0] == "connection_lost" for protocol in protocols))
        server.close()
        await server.wait_closed()
        return len(protocols)

    assert run(main()) == 150


def test_each_connection_has_a_context_of_its_own(run: Run) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    class Noting(asyncio.Protocol):
        def __init__(self) -> None:
            self.seen = [variable.get()]
            variable.set(f"connection {len(made)}")
            made.append(self)

        def connection_made(self, transport: Any) -> None:
            self.seen.append(variable.get())

        def data_received(self, data: bytes) -> None:
            self.seen.append(variable.get())

    made: list[Noting] = []

    async def main() -> list[list[str]]:
        variable.set("server")
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Noting, "127.0.0.1", 0)
        variable.set("later")
        peers = [await dial(server) for _ in range(2)]
        await until(lambda: len(made) == 2)
        for peer in peers:
            await loop.sock_sendall(peer, b"x")
        await until(lambda: all(len(protocol.seen) == 3 for protocol in made))
        for peer in peers:
            peer.close()
        server.close()
        await server.wait_closed()
        return [protocol.seen for protocol in made]

    assert run(main()) == [["server", f"connection {n}", f"connection {n}"] for n in range(2)]


@pytest.mark.parametrize(
    "arguments,expected",
    [
        ({}, (ValueError, "Neither host/port nor sock were specified")),
        ({"port": 0, "ssl": True}, (TypeError, "ssl argument must be an SSLContext or None")),
        ({"port": 0, "ssl_handshake_timeout": 1}, (ValueError, "ssl_handshake_timeout is only meaningful with ssl")),
        ({"port": 0, "ssl_shutdown_timeout": 1}, (ValueError, "ssl_shutdown_timeout is only meaningful with ssl")),
    ],
)
def test_wrong_arguments(run: Run, arguments: dict[str, Any], expected: Any) -> None:
    async def main() -> Any:
        return await outcome(asyncio.get_running_loop().create_server(asyncio.Protocol, **arguments))

    assert run(main()) == expected


def test_an_address_in_use(run: Run) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as owner:
            address = owner.getsockname()
            loop = asyncio.get_running_loop()
            with pytest.raises(OSError) as caught:
                await loop.create_server(asyncio.Protocol, *address)
            assert caught.value.errno == errno.EADDRINUSE
            said = asyncio.base_events.BaseEventLoop.create_server.__code__.co_names
            number = "" if "strerror" in said else "[errno 98] "
            start = f"[Errno 98] error while attempting to bind on address {address!r}: "
            assert str(caught.value) == start + number + "address already in use"
            assert caught.value.__cause__ is None

    run(main())


def test_an_address_that_is_not_ours(run: Run) -> None:
    async def main() -> Any:
        return await outcome(asyncio.get_running_loop().create_server(asyncio.Protocol, "192.0.2.1", 9))

    kind, text = run(main())
    assert kind is OSError
    if KNOWS_CLIENTS:
        assert text == "could not bind on any address out of [('192.0.2.1', 9)]"
    else:
        assert text.startswith("[Errno 99] error while attempting to bind on address ('192.0.2.1', 9): ")


def test_several_hosts_and_double_addresses(run: Run) -> None:
    async def main() -> list[str]:
        hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.1"]
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, hosts, 0)
        names = sorted(sock.getsockname()[0] for sock in server.sockets)
        server.close()
        return names

    assert run(main()) == ["127.0.0.1", "127.0.0.2"]


def test_socket_options(run: Run) -> None:
    async def main() -> None:
        options: dict[str, Any] = {"keep_alive": True} if KNOWS_CLIENTS else {}
        server, _ = await serve(reuse_port=True, **options)
        sock = server.sockets[0]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is KNOWS_CLIENTS
        server.close()
        server, _ = await serve(reuse_address=False)
        assert not server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        server.close()

    run(main())


def test_serving_can_begin_later(run: Run) -> None:
    async def main() -> None:
        server, protocols = await serve(start_serving=False)
        assert not server.is_serving()
        await server.start_serving()
        await server.start_serving()
        assert server.is_serving()
        peer = await dial(server)
        await until(lambda: protocols and protocols[0].calls)
        peer.close()
        server.close()
        assert not server.is_serving()
        with pytest.raises(TypeError):
            await server.start_serving()
        await until(lambda: protocols[0].calls[-1][0] == "connection_lost")

    run(main())


def test_serve_forever(run: Run) -> None:
    async def main() -> None:
        server, _ = await serve(start_serving=False)
        task = asyncio.ensure_future(server.serve_forever())
        await asyncio.sleep(0)
        assert server.is_serving()
        shown = repr(server)
        message = (RuntimeError, f"server {shown} is already being awaited on serve_forever()")
        assert await outcome(server.serve_forever()) == message
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not server.is_serving() and server.sockets == ()
        assert await outcome(server.serve_forever()) == (RuntimeError, "server <Server sockets=()> is closed")

    run(main())


def test_close_ends_serve_forever(run: Run) -> None:
    async def main() -> None:
        server, _ = await serve()
        task = asyncio.ensure_future(server.serve_forever())
        await asyncio.sleep(0)
        server.close()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_async_with_closes(run: Run) -> None:
    async def main() -> None:
        server, _ = await serve()
        async with server as entered:
            assert entered is server
        assert server.sockets == ()

    run(main())


def test_wait_closed_waits_for_the_connections(run: Run) -> None:
    async def main() -> list[bool]:
        server, protocols = await serve()
        peer = await dial(server)
        await until(lambda: protocols and protocols[0].calls)
        early = asyncio.ensure_future(server.wait_closed())
        await asyncio.sleep(0)
        states = [early.done()]
        server.close()
        server.close()
        late = asyncio.ensure_future(server.wait_closed())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        states += [early.done(), late.done()]
        peer.close()
        await asyncio.gather(early, late)
        await server.wait_closed()
        return states

    # Up to 3.11 the wait for a closed server is none; 3.12.0 has a rule of its own, which needs a connection here too.
    assert run(main()) == [False, False, sys.version_info < (3, 12)]


@pytest.mark.skipif(not KNOWS_CLIENTS, reason="came with 3.13")
@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
def test_clients_can_be_closed(run: Run, method: str) -> None:
    async def main() -> None:
        server, protocols = await serve()
        peers = [await dial(server) for _ in range(3)]
        await until(lambda: sum(bool(protocol.calls) for protocol in protocols) == 3)
        assert {protocol.transport for protocol in protocols} == set(server._clients)
        server.close()
        getattr(server, method)()
        await server.wait_closed()
        assert [protocol.calls[-1] for protocol in protocols] == [("connection_lost", None)] * 3
        assert not server._clients
        for peer in peers:
            peer.close()

    run(main())


@pytest.mark.skipif(not KNOWS_CLIENTS, reason="older servers only count their connections")
def test_a_transport_that_everybody_forgets_does_not_hold_up_the_end(run: Run) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
        peer = await dial(server)
        await until(lambda: server._clients)
        await asyncio.sleep(0.01)
        server.close()
        with pytest.warns(ResourceWarning):
            for transport in list(server._clients):
                transport.pause_reading()  # now nobody but the set of clients knows it
                del transport
            gc.collect()
        await asyncio.wait_for(server.wait_closed(), 20)
        peer.close()

    run(main())


def test_a_loop_with_a_server_that_nobody_closed_can_be_collected(loop_factory: Callable[[], Any]) -> None:
    loop = loop_factory()

    server = loop.run_until_complete(loop.create_server(asyncio.Protocol, "127.0.0.1", 0))
    sockets = [sock._sock for sock in server.sockets]
    reference = weakref.ref(server)
    loop.close()
    del server, loop
    for sock in sockets:
        sock.close()
    del sock, sockets
    gc.collect()
    assert reference() is None
