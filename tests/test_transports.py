"""The transport of a stream socket: its life, its attributes, what asyncio's own Python code asks of it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import socket
import sys
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from recorder import MEGABYTE, TIMEOUT, Recorder, connect, finish, receive, receive_all

Run = Callable[..., Any]


def test_a_connection_from_beginning_to_end(run: Run) -> None:
    async def main() -> list[tuple[str, Any]]:
        protocol = Recorder()
        transport, peer = await connect(protocol)
        assert protocol.calls == [("connection_made", transport)]
        assert transport.is_reading() and not transport.is_closing()
        await asyncio.get_running_loop().sock_sendall(peer, b"request")
        assert await protocol.until_called("data_received") == b"request"
        transport.write(b"answer")
        assert await receive(peer, 6) == b"answer"
        peer.close()
        await protocol.until_called("connection_lost")
        assert transport.is_closing() and not transport.is_reading()
        return protocol.calls[1:]

    expected = [("data_received", b"request"), ("eof_received", None), ("connection_lost", None)]
    assert run(main()) == expected


def test_extra_information(run: Run) -> None:
    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        protocol = Recorder()
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, *listener.getsockname())
        peer, address = listener.accept()
        extra = transport.get_extra_info("socket")
        assert type(extra) is asyncio.trsock.TransportSocket
        assert extra.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert transport.get_extra_info("sockname") == address == extra.getsockname()
        assert transport.get_extra_info("peername") == listener.getsockname()
        assert transport.get_extra_info("nothing") is None
        assert transport.get_extra_info("nothing", 7) == 7
        assert isinstance(transport, asyncio.Transport)
        await finish(protocol, peer)
        assert transport.get_extra_info("sockname") == address
        listener.close()

    run(main())


class Guise:
    """What says that it is a socket, as a mock with a `spec` does, and hands everything on to one."""

    def __init__(self, behind: socket.socket) -> None:
        self.__dict__["behind"] = behind

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return socket.socket

    def __getattr__(self, name: str) -> Any:
        return getattr(self.behind, name)


def test_what_only_says_that_it_is_a_socket_is_asked_for_its_descriptor(run: Run) -> None:
    async def main() -> bytes:
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        protocol = Recorder()
        loop: Any = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: protocol, sock=Guise(near))
        transport.write(b"disguised")
        received = await receive(far, 9)
        await finish(protocol, far)
        return received

    assert run(main()) == b"disguised"


def test_attributes_and_weak_references(run: Run) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connect(protocol)
        transport.note = "of an application"
        assert transport.note == "of an application"
        assert weakref.ref(transport)() is transport
        assert len({transport, transport}) == 1
        await finish(protocol, peer)

    run(main())


def test_repr(run: Run) -> None:
    async def main() -> list[str]:
        protocol = Recorder()
        transport, peer = await connect(protocol, buffer=4096)
        number = transport.get_extra_info("socket").fileno()

        def shown() -> str:
            text = repr(transport)
            assert text.startswith(f"<{type(transport).__name__} ") and f"fd={number}" in text
            return text.replace(type(transport).__name__, "T").replace(f"fd={number}", "fd=N")

        texts = [shown()]
        transport.pause_reading()
        texts.append(shown())
        transport.write(MEGABYTE)
        size = transport.get_write_buffer_size()
        texts.append(shown().replace(f"bufsize={size}", "bufsize=N"))
        transport.abort()
        texts.append(shown())
        await finish(protocol, peer)
        texts.append(shown())
        return texts

    assert run(main()) == [
        "<T fd=N read=polling write=<idle, bufsize=0>>",
        "<T fd=N read=idle write=<idle, bufsize=0>>",
        "<T fd=N read=idle write=<polling, bufsize=N>>",
        "<T closing fd=N read=idle write=<idle, bufsize=0>>",
        "<T closed fd=N>",
    ]


def test_a_dropped_transport_warns_and_closes_its_socket(run: Run) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connect(protocol)
        transport.pause_reading()
        shown = repr(transport)
        protocol.calls.clear()
        protocol.transport = None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del transport
            gc.collect()
        # The socket may be found unclosed before its transport is: they die in one garbage collection.
        texts = {str(warning.message) for warning in caught if warning.category is ResourceWarning}
        assert f"unclosed transport {shown}" in texts
        assert await receive_all(peer) == b""
        assert protocol.calls == []
        peer.close()

    run(main())


def test_a_transport_that_reads_is_kept_by_the_loop(run: Run) -> None:
    async def main() -> None:
        protocol = Recorder()
        near, peer = socket.socketpair()
        near.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: protocol, sock=near)
        protocol.transport = None
        protocol.calls.clear()
        gc.collect()
        peer.send(b"is anybody there?")
        assert await protocol.until_called("data_received") == b"is anybody there?"
        peer.close()
        await protocol.until_called("connection_lost")

    run(main())


def test_the_callbacks_run_in_the_contexts_of_asyncio(run: Run) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: dict[str, str] = {}

    def look(name: str) -> Callable[[Recorder], None]:
        def note(protocol: Recorder) -> None:
            seen[name] = variable.get()
            if name == "connection_made":
                variable.set("by connection_made")

        return note

    async def main() -> None:
        names = ["connection_made", "data_received", "pause_writing", "resume_writing", "connection_lost"]
        protocol = Recorder(**{name: look(name) for name in names})
        variable.set("at the beginning")
        transport, peer = await connect(protocol, buffer=4096)
        variable.set("before the write")
        transport.write(MEGABYTE)
        await asyncio.get_running_loop().sock_sendall(peer, b"?")
        await protocol.until_called("data_received")
        variable.set("before the end")
        assert await receive(peer, len(MEGABYTE)) == MEGABYTE
        await protocol.until_called("resume_writing")
        transport.close()
        await protocol.until_called("connection_lost")
        peer.close()

    run(main())
    expected = {
        "connection_made": "at the beginning",
        "data_received": "at the beginning",
        "pause_writing": "before the write",
        "resume_writing": "before the write",
        "connection_lost": "before the end",
    }
    if sys.version_info >= (3, 15):  # one context for all callbacks of a connection
        names = ["data_received", "resume_writing", "connection_lost"]
        expected |= dict.fromkeys(names, "by connection_made")
    assert seen == expected


def test_a_descriptor_of_a_transport_is_not_to_be_watched_by_others(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Recorder()
        transport, peer = await connect(protocol)
        transport.pause_reading()
        near = transport.get_extra_info("socket")
        for method in (loop.add_reader, loop.add_writer):
            with pytest.raises(RuntimeError, match=r"File descriptor .* is used by transport <.*fd=.*>"):
                method(near.fileno(), print)
        for method in (loop.remove_reader, loop.remove_writer):
            with pytest.raises(RuntimeError, match="is used by transport"):
                method(near)
        await finish(protocol, peer)

    run(main())


def test_a_closed_loop_refuses_to_close_a_transport(loop_factory: Callable[[], Any]) -> None:
    loop = loop_factory()

    async def begin() -> tuple[Recorder, Any, socket.socket]:
        protocol = Recorder()
        return protocol, *await connect(protocol)

    protocol, transport, peer = loop.run_until_complete(begin())
    near = transport.get_extra_info("socket")
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        transport.close()
    protocol.calls.clear()
    protocol.transport = None
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        del transport
        gc.collect()
    assert near.fileno() == -1
    peer.close()


def test_a_server_waits_for_its_connections(run: Run) -> None:
    async def main() -> None:
        protocol = Recorder()
        server = await asyncio.get_running_loop().create_server(lambda: protocol, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        _, writer = await asyncio.open_connection(*address)
        await protocol.until_called("connection_made")
        server.close()
        waiting = asyncio.ensure_future(server.wait_closed())
        protocol.transport.write(b"bye")
        protocol.transport.close()
        await asyncio.wait_for(waiting, TIMEOUT)
        writer.close()
        await writer.wait_closed()
        await protocol.until_called("connection_lost")

    run(main())
