"""What a stream transport tells of its connection, asked for the first time at any moment of its life."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recorder import Recorder, connect, finish

Run = Callable[..., Any]
KEYS = ("sockname", "peername")


async def accepted(family: int, place: Any, **options: Any) -> tuple[Any, Recorder, socket.socket]:
    """A server, the protocol of the connection it has accepted, and that connection's other end."""
    loop = asyncio.get_running_loop()
    protocol = Recorder()
    create = loop.create_unix_server if family == socket.AF_UNIX else loop.create_server
    listener = socket.socket(family)
    listener.bind(place)
    server = await create(lambda: protocol, sock=listener, **options)
    peer = socket.socket(family)
    peer.setblocking(False)
    await loop.sock_connect(peer, listener.getsockname())
    await protocol.until_called("connection_made")
    return server, protocol, peer


def places(tmp_path: Path) -> list[tuple[int, Any]]:
    found: list[tuple[int, Any]] = [(socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_UNIX, str(tmp_path / "s"))]
    if socket.has_ipv6:
        found.append((socket.AF_INET6, ("::1", 0)))
    return found


@pytest.mark.parametrize("asked", ["at once", "closing", "after the end"])
def test_names_of_an_accepted_connection(run: Run, tmp_path: Path, asked: str) -> None:
    async def main() -> None:
        for family, place in places(tmp_path):
            server, protocol, peer = await accepted(family, place)
            transport = protocol.transport
            expected = (peer.getpeername(), peer.getsockname())
            if asked != "at once":
                transport.close()
            if asked == "after the end":
                await protocol.until_called("connection_lost")
            assert tuple(transport.get_extra_info(key) for key in KEYS) == expected
            own = transport.get_extra_info("socket")
            assert type(own) is asyncio.trsock.TransportSocket and own.family == family
            assert (own.fileno() == -1) is (asked == "after the end")
            await finish(protocol, peer)
            assert tuple(transport.get_extra_info(key) for key in KEYS) == expected
            assert transport.get_extra_info("socket") is own
            server.close()
            await server.wait_closed()

    run(main())


def test_names_after_a_reset(run: Run) -> None:
    async def main() -> None:
        server, protocol, peer = await accepted(socket.AF_INET, ("127.0.0.1", 0))
        expected = (peer.getpeername(), peer.getsockname())
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        await protocol.until_called("connection_lost")
        assert isinstance(protocol.argument("connection_lost"), ConnectionResetError)
        assert tuple(protocol.transport.get_extra_info(key) for key in KEYS) == expected
        server.close()

    run(main())


def test_the_dictionary_is_one_and_can_be_replaced(run: Run) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connect(protocol)
        extra = transport._extra
        assert set(extra) == {"socket", "sockname", "peername"}
        assert extra["sockname"] == extra["peername"] == ""
        extra["more"] = 5
        assert transport.get_extra_info("more") == 5 and transport._extra is extra
        transport._extra = {"other": 6}
        assert transport.get_extra_info("other") == 6 and transport.get_extra_info("socket") is None
        await finish(protocol, peer)
        assert transport.get_extra_info("other") == 6

    run(main())


def test_a_given_dictionary_is_filled(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        near, far = socket.socketpair()
        near.setblocking(False)
        protocol = Recorder()
        given = {"peername": "of the creator", "more": 7}
        transport = loop._make_socket_transport(near, protocol, extra=given)
        await protocol.until_called("connection_made")
        assert transport._extra is given and given["sockname"] == ""
        assert transport.get_extra_info("peername") == "of the creator" and transport.get_extra_info("more") == 7
        await finish(protocol, far)

    run(main())


def test_a_socket_that_says_its_names_itself(run: Run) -> None:
    class Named(socket.socket):
        def getsockname(self) -> Any:
            return "own"

        def getpeername(self) -> Any:
            raise OSError("nobody")

    async def main() -> None:
        near, far = socket.socketpair()
        named = Named(near.family, near.type, near.proto, near.detach())
        named.setblocking(False)
        protocol = Recorder()
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, sock=named)
        assert transport.get_extra_info("sockname") == "own" and transport.get_extra_info("peername") is None
        await finish(protocol, far)

    run(main())


def test_nothing_is_kept_alive(run: Run) -> None:
    async def main() -> None:
        server, protocol, peer = await accepted(socket.AF_INET, ("127.0.0.1", 0))
        await finish(protocol, peer)
        server.close()
        protocol.transport, protocol.calls = None, []
        gc.collect()
        assert not [made for made in gc.get_objects() if type(made).__name__.endswith("SocketTransport")]

    run(main())
