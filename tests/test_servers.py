"""Servers: create_server, create_unix_server, the Server object, and the connections that they accept."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import gc
import os
import resource
import socket
import stat
import sys
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ioxide
from recorder import Recorder

Run = Callable[..., Any]

KNOWS_CLIENTS = sys.version_info >= (3, 13)


async def serve(**options: Any) -> tuple[Any, list[Recorder]]:
    """A server on a free port, and the protocols of its connections in the order in which they came."""
    protocols: list[Recorder] = []

    def factory() -> Recorder:
        protocols.append(Recorder())
        return protocols[-1]

    return await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0, **options), protocols


async def dial(server: Any) -> socket.socket:
    """A plain socket that is connected to the server; when it is accepted is the server's affair."""
    peer = socket.socket()
    peer.setblocking(False)
    await asyncio.get_running_loop().sock_connect(peer, server.sockets[0].getsockname())
    return peer


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def outcome(awaitable: Any) -> Any:
    try:
        return await awaitable
    except Exception as error:
        return type(error), str(error)


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


@pytest.mark.parametrize("debug", [False, True])
def test_errors_of_the_protocol_factory(run: Run, debug: bool) -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        reports: list[Any] = []
        loop.set_exception_handler(
            lambda _, context: reports.append((context["message"], repr(context["exception"])))
        )
        answers = [ZeroDivisionError("factory"), Recorder()]

        def factory() -> Any:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        server = await loop.create_server(factory, "127.0.0.1", 0)
        first = await dial(server)
        await until(lambda: len(answers) == 1)
        second = await dial(server)
        await until(lambda: not answers)
        await asyncio.sleep(0)
        gc.collect()  # asyncio leaves the first connection to its finalizer
        assert await asyncio.wait_for(loop.sock_recv(first, 1), 20) == b""
        first.close()
        second.close()
        server.close()
        return reports

    expected = [("Error on transport creation for incoming connection", "ZeroDivisionError('factory')")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        assert run(main(), debug=debug) == (expected if debug else [])


def test_a_factory_may_close_the_server() -> None:
    """On ioxide alone: asyncio leaves the connection to its finalizers, which fail."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        reports: list[Any] = []
        loop.set_exception_handler(lambda _, context: reports.append(context))

        def factory() -> Recorder:
            server.close()
            return Recorder()

        server = await loop.create_server(factory, "127.0.0.1", 0)
        peer = await dial(server)
        assert await asyncio.wait_for(loop.sock_recv(peer, 1), 20) == b""
        peer.close()
        assert server.sockets == () and not reports

    ioxide.run(main())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # asyncio leaves the socket open
def test_system_exit_leaves_the_loop(loop: asyncio.AbstractEventLoop) -> None:
    def factory() -> asyncio.Protocol:
        raise SystemExit(3)

    async def main() -> None:
        server = await loop.create_server(factory, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()):
            try:
                await loop.create_future()
            finally:
                server.close()

    task = loop.create_task(main())
    with pytest.raises(SystemExit):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)


def test_out_of_descriptors(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accepting pauses and goes on; the connection that waited is served."""
    monkeypatch.setattr("asyncio.constants.ACCEPT_RETRY_DELAY", 0.01)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        reports: list[Any] = []
        loop.set_exception_handler(lambda _, context: reports.append(context))
        server, protocols = await serve(backlog=1)
        # One turn accepts nothing: the sockets of this test exist before descriptors run out.
        peer = socket.socket()
        peer.setblocking(False)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, limits[1]))
        try:
            await loop.sock_connect(peer, server.sockets[0].getsockname())
            await until(lambda: reports)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert not protocols
        await until(lambda: protocols)
        report = reports[0]
        assert report["message"] == "socket.accept() out of system resource"
        assert report["exception"].errno == errno.EMFILE
        assert report["socket"].getsockname() == server.sockets[0].getsockname()
        peer.close()
        await until(lambda: protocols[0].calls and protocols[0].calls[-1][0] == "connection_lost")
        server.close()
        await server.wait_closed()

    run(main())


def test_a_socket_class_with_an_accept_of_its_own(run: Run) -> None:
    class Counting(socket.socket):
        accepted = 0

        def accept(self) -> Any:
            connection = super().accept()
            Counting.accepted += 1
            return connection

    async def main() -> int:
        listening = Counting()
        listening.bind(("127.0.0.1", 0))
        protocols: list[Recorder] = []
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: protocols.append(Recorder()) or protocols[-1], sock=listening)
        peer = await dial(server)
        await until(lambda: protocols and protocols[0].calls)
        peer.close()
        await protocols[0].until_called("connection_lost")
        server.close()
        return Counting.accepted

    assert run(main()) == 1


def unix_path(tmp_path: Path, form: str) -> Any:
    path = tmp_path / "server"
    return {"path": path, "text": str(path), "bytes": os.fsencode(path), "abstract": "\0ioxide-servers"}[form]


@pytest.mark.parametrize("form", ["path", "text", "bytes", "abstract"])
def test_a_unix_server(run: Run, tmp_path: Path, form: str) -> None:
    path = unix_path(tmp_path, form)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocols: list[Recorder] = []
        server = await loop.create_unix_server(lambda: protocols.append(Recorder()) or protocols[-1], path)
        peer = socket.socket(socket.AF_UNIX)
        peer.setblocking(False)
        await loop.sock_connect(peer, os.fspath(path))
        await until(lambda: protocols and protocols[0].calls)
        assert protocols[0].transport.get_extra_info("socket").family == socket.AF_UNIX
        peer.close()
        await protocols[0].until_called("connection_lost")
        server.close()
        await server.wait_closed()
        if form != "abstract":
            assert os.path.exists(path) is not KNOWS_CLIENTS

    run(main())


def test_a_stale_socket_is_replaced_and_a_file_is_not(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        path = tmp_path / "server"
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        server = await loop.create_unix_server(asyncio.Protocol, path)
        assert stat.S_ISSOCK(path.stat().st_mode)
        server.close()
        ordinary = tmp_path / "file"
        ordinary.write_text("precious")
        message = (OSError, f"[Errno 98] Address {str(ordinary)!r} is already in use")
        assert await outcome(loop.create_unix_server(asyncio.Protocol, ordinary)) == message
        assert ordinary.read_text() == "precious"

    run(main())


@pytest.mark.skipif(not KNOWS_CLIENTS, reason="the file stays before 3.13")
def test_the_file_of_another_server_stays(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        path = tmp_path / "server"
        first = await loop.create_unix_server(asyncio.Protocol, path)
        second = await loop.create_unix_server(asyncio.Protocol, path)
        first.close()
        assert path.exists()
        second.close()
        assert not path.exists()
        kept = await loop.create_unix_server(asyncio.Protocol, path, cleanup_socket=False)  # type: ignore[call-arg]
        kept.close()
        assert path.exists()

    run(main())


def test_unix_server_errors(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        create: Any = asyncio.get_running_loop().create_unix_server
        assert await outcome(create(asyncio.Protocol)) == (
            ValueError,
            "path was not specified, and no sock specified",
        )
        with socket.socket(socket.AF_UNIX) as given:
            message = (ValueError, "path and sock can not be specified at the same time")
            assert await outcome(create(asyncio.Protocol, "x", sock=given)) == message
        missing = await outcome(create(asyncio.Protocol, tmp_path / "missing" / "server"))
        assert missing == (FileNotFoundError, "[Errno 2] No such file or directory")

    run(main())


def test_a_loop_with_a_server_that_nobody_closed_can_be_collected(loop_factory: Callable[[], Any]) -> None:
    loop = loop_factory()

    async def main() -> Any:
        return await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)

    server = loop.run_until_complete(main())
    sockets = [sock._sock for sock in server.sockets]
    reference = weakref.ref(server)
    loop.close()
    del server, loop
    for sock in sockets:
        sock.close()
    del sock, sockets
    gc.collect()
    assert reference() is None
