"""create_datagram_endpoint: every option, on both loops, and sock_recvfrom and sock_sendto on what it gives.

What it leaves to others: the transport (test_transports_datagram.py).
"""

from __future__ import annotations

import asyncio
import errno
import inspect
import logging
import os
import socket
import warnings
from pathlib import Path
from typing import Any

import pytest

from datagram_ends import TIMEOUT, Datagrams, endpoint, finish, hear, plain


def create(**options: Any) -> Any:
    return asyncio.get_running_loop().create_datagram_endpoint(Datagrams, **options)


async def refused(kind: type[BaseException], **options: Any) -> str:
    with pytest.raises(kind) as raised:
        await create(**options)
    return str(raised.value)


def test_it_is_a_coroutine_function(loop: asyncio.AbstractEventLoop) -> None:
    assert inspect.iscoroutinefunction(loop.create_datagram_endpoint)


def test_a_local_and_a_remote_address(run: Any) -> None:
    async def main() -> None:
        peer = plain()
        protocol = Datagrams()
        transport = await endpoint(protocol, local_addr=("127.0.0.1", 0), remote_addr=("localhost", peer.getsockname()[1]))
        assert protocol.names == ["connection_made"]
        assert transport.get_extra_info("peername") == peer.getsockname()
        assert transport.get_extra_info("sockname")[0] == "127.0.0.1"
        assert transport._address == peer.getsockname()
        transport.sendto(b"x")
        assert await hear(peer) == b"x"
        await finish(protocol, peer)

    run(main())


def test_a_family_alone(run: Any) -> None:
    async def main() -> None:
        protocol = Datagrams()
        transport = await endpoint(protocol, family=socket.AF_INET)
        peer = plain()
        transport.sendto(b"from anywhere", peer.getsockname())
        assert await hear(peer) == b"from anywhere"
        await finish(protocol, peer)

    run(main())


def test_what_is_missing_or_wrong(run: Any) -> None:
    async def main() -> list[str]:
        return [
            await refused(ValueError),
            await refused(TypeError, local_addr="127.0.0.1"),
            await refused(TypeError, local_addr=("127.0.0.1",)),
            await refused(TypeError, remote_addr=["127.0.0.1", 80]),
            await refused(ValueError, local_addr=("127.0.0.1", 0), remote_addr=("::1", 80)),
            await refused(TypeError, family=socket.AF_UNIX, local_addr=("path", 0)),
        ]

    assert run(main()) == [
        "unexpected address family",
        "2-tuple is expected",
        "2-tuple is expected",
        "2-tuple is expected",
        "can not get address information",
        "string is expected",
    ]


def test_reuse_address_is_no_option(run: Any) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="reuse_address"):
            await create(local_addr=("127.0.0.1", 0), reuse_address=False)

    run(main())


def test_an_address_in_use(run: Any) -> None:
    async def main() -> None:
        peer = plain()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(OSError) as raised:
                await create(local_addr=peer.getsockname())
        assert raised.value.errno == errno.EADDRINUSE
        peer.close()

    run(main())


def test_a_name_without_an_address(run: Any) -> None:
    async def main() -> None:
        with pytest.raises(socket.gaierror):
            await create(remote_addr=("no.such.name.invalid", 1))

    run(main())


def test_reuse_port(run: Any) -> None:
    async def main() -> None:
        first, second = Datagrams(), Datagrams()
        transport = await endpoint(first, local_addr=("127.0.0.1", 0), reuse_port=True)
        again = await endpoint(second, local_addr=transport.get_extra_info("sockname"), reuse_port=True)
        for made in (transport, again):
            assert made.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
            assert not made.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        await finish(first)
        await finish(second)

    run(main())


def test_allow_broadcast_does_not_connect(run: Any) -> None:
    async def main() -> None:
        peer, stranger = plain(), plain()
        protocol = Datagrams()
        transport = await endpoint(protocol, local_addr=("127.0.0.1", 0), remote_addr=peer.getsockname(), allow_broadcast=True)
        assert transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
        assert transport.get_extra_info("peername") is None
        transport.sendto(b"x")
        assert await hear(peer) == b"x"
        with pytest.raises(ValueError, match="Invalid address: must be None or"):
            transport.sendto(b"x", stranger.getsockname())
        stranger.sendto(b"heard", transport.get_extra_info("sockname"))
        assert await protocol.until_called("datagram_received") == (b"heard", stranger.getsockname())
        await finish(protocol, peer, stranger)

    run(main())


def test_the_callers_own_socket(run: Any) -> None:
    async def main() -> None:
        own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        own.bind(("127.0.0.1", 0))
        protocol = Datagrams()
        await endpoint(protocol, sock=own)
        assert own.gettimeout() == 0
        peer = plain()
        peer.sendto(b"x", own.getsockname())
        assert await protocol.until_called("datagram_received") == (b"x", peer.getsockname())
        await finish(protocol, peer)
        assert own.fileno() == -1

    run(main())


def test_the_callers_own_socket_is_as_it_is(run: Any) -> None:
    async def main() -> list[str]:
        with socket.socket() as stream, plain() as own:
            texts = [
                (await refused(ValueError, sock=stream)).replace(repr(stream), "SOCKET"),
                await refused(ValueError, sock=own, local_addr=("127.0.0.1", 0), reuse_port=True),
                await refused(ValueError, sock=own, family=socket.AF_INET, proto=1, flags=2, allow_broadcast=True),
                await refused(ValueError, sock=own, remote_addr=("127.0.0.1", 1)),
            ]
            assert own.fileno() != -1
        return texts

    refusal = run(main())
    problem = "socket modifier keyword arguments can not be used when sock is specified. "
    assert refusal[0] in ("A UDP Socket was expected, got SOCKET", "A datagram socket was expected, got SOCKET")
    family = f"{socket.AF_INET}"
    assert refusal[1:] == [
        problem + "(local_addr=('127.0.0.1', 0), reuse_port=True)",
        problem + f"(family={family}, proto=1, flags=2, allow_broadcast=True)",
        problem + "(remote_addr=('127.0.0.1', 1))",
    ]


def test_unix_datagrams(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        server, client = Datagrams(), Datagrams()
        paths = [str(tmp_path / name) for name in ("server", "client")]
        serving = await endpoint(server, family=socket.AF_UNIX, local_addr=paths[0])
        calling = await endpoint(client, family=socket.AF_UNIX, local_addr=paths[1], remote_addr=paths[0])
        assert calling.get_extra_info("peername") == paths[0] and serving.get_extra_info("sockname") == paths[0]
        calling.sendto(b"question")
        assert await server.until_called("datagram_received") == (b"question", paths[1])
        serving.sendto(b"answer", paths[1])
        assert await client.until_called("datagram_received") == (b"answer", paths[0])
        with plain(socket.AF_UNIX, "") as nobody:
            nobody.sendto(b"who?", paths[0])
            await server.until(lambda: len(server.received) == 2)
        await finish(client)
        await finish(server)
        assert os.path.exists(paths[0])

    run(main())


def test_unix_datagrams_of_a_peer_without_a_name(run: Any) -> None:
    async def main() -> Any:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        protocol = Datagrams()
        await endpoint(protocol, sock=near)
        far.send(b"x")
        sender = (await protocol.until_called("datagram_received"))[1]
        await finish(protocol, far)
        return sender

    assert run(main()) is None


def test_a_stale_unix_socket_is_replaced(run: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = str(tmp_path / "stale")

    async def main() -> None:
        plain(socket.AF_UNIX, path).close()
        for _ in range(2):
            protocol = Datagrams()
            await endpoint(protocol, family=socket.AF_UNIX, local_addr=path)
            await finish(protocol)
        os.unlink(path)
        Path(path).write_text("no socket")
        with pytest.raises(OSError) as raised:
            await create(family=socket.AF_UNIX, local_addr=path)
        assert raised.value.errno == errno.EADDRINUSE and Path(path).read_text() == "no socket"
        with pytest.raises(NotADirectoryError):
            await create(family=socket.AF_UNIX, local_addr=path + "/below")

    with caplog.at_level(logging.ERROR, "asyncio"):
        run(main())
    assert [record.getMessage().partition(": ")[0] for record in caplog.records] == [
        f"Unable to check or remove stale UNIX socket '{path}/below'"
    ]


def test_an_abstract_unix_address(run: Any) -> None:
    async def main() -> None:
        protocol = Datagrams()
        name = f"\0ioxide-test-{os.getpid()}"
        transport = await endpoint(protocol, family=socket.AF_UNIX, local_addr=name)
        assert transport.get_extra_info("sockname") == name.encode()
        with plain(socket.AF_UNIX, "") as peer:
            peer.sendto(b"x", name)
            assert (await protocol.until_called("datagram_received"))[0] == b"x"
        await finish(protocol)

    run(main())


def test_a_cancelled_endpoint_is_closed(run: Any) -> None:
    async def main() -> None:
        own = plain()
        protocol = Datagrams()
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(loop.create_datagram_endpoint(lambda: protocol, sock=own))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await protocol.until_called("connection_lost")
        assert own.fileno() == -1

    run(main())


def test_an_overridden_sock_connect_is_honoured(run: Any) -> None:
    async def main() -> list[Any]:
        loop: Any = asyncio.get_running_loop()
        seen = []

        async def sock_connect(sock: socket.socket, address: Any) -> None:
            seen.append(address)
            sock.connect(address)

        loop.sock_connect = sock_connect
        peer = plain()
        protocol = Datagrams()
        await endpoint(protocol, remote_addr=peer.getsockname())
        assert seen == [peer.getsockname()]
        await finish(protocol, peer)
        return seen

    assert len(run(main())) == 1


def test_debug_mode_tells_of_new_endpoints(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        peer = plain()
        for options in ({"local_addr": ("127.0.0.1", 0)}, {"remote_addr": peer.getsockname()}):
            protocol = Datagrams()
            await endpoint(protocol, **options)
            await finish(protocol)
        peer.close()

    with caplog.at_level(logging.DEBUG, "asyncio"):
        run(main(), debug=True)
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Datagram endpoint")]
    assert lines[0].startswith("Datagram endpoint local_addr=('127.0.0.1', 0) remote_addr=None created: (<")
    assert lines[1].startswith("Datagram endpoint remote_addr=('127.0.0.1', ") and " created: (<" in lines[1]


def test_sock_methods_on_datagrams(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        near, far = plain(), plain()
        async with asyncio.timeout(TIMEOUT):
            waiting = asyncio.create_task(loop.sock_recvfrom(far, 100))
            await asyncio.sleep(0)
            assert await loop.sock_sendto(near, b"one", far.getsockname()) == 3
            assert await waiting == (b"one", near.getsockname())
            assert await loop.sock_sendto(far, bytearray(b"two"), near.getsockname()) == 3
            buffer = bytearray(10)
            assert await loop.sock_recvfrom_into(near, buffer) == (3, far.getsockname())
            assert buffer[:3] == b"two"
            assert await loop.sock_sendto(far, b"cut short", near.getsockname()) == 9
            assert await loop.sock_recvfrom_into(near, buffer, 3) == (3, far.getsockname())
            assert await loop.sock_sendto(near, b"", far.getsockname()) == 0
            assert await loop.sock_recvfrom(far, 100) == (b"", near.getsockname())
            with pytest.raises(OSError) as raised:
                await loop.sock_sendto(near, bytes(70000), far.getsockname())
            assert raised.value.errno == errno.EMSGSIZE
            await loop.sock_connect(near, far.getsockname())
            await loop.sock_sendall(near, b"connected")
            assert await loop.sock_recv(far, 100) == b"connected"
        near.close()
        far.close()

    run(main())


def test_sock_sendto_waits_for_room(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        path = str(tmp_path / "peer")
        near, far = plain(socket.AF_UNIX, ""), plain(socket.AF_UNIX, path)

        async def send() -> None:
            for number in range(300):
                await loop.sock_sendto(near, b"%04d" % number + bytes(1020), path)

        async with asyncio.timeout(TIMEOUT):
            sending = asyncio.create_task(send())
            for number in range(300):
                assert (await loop.sock_recvfrom(far, 2000))[0][:4] == b"%04d" % number
            await sending
        near.close()
        far.close()

    run(main())


@pytest.mark.skipif(not socket.has_ipv6, reason="Python was built without IPv6")
def test_six(run: Any) -> None:
    async def main() -> None:
        protocol = Datagrams()
        try:
            transport = await endpoint(protocol, local_addr=("::1", 0))
        except OSError as error:
            pytest.skip(f"this machine has no IPv6 loopback: {error}")
        peer = plain(socket.AF_INET6, ("::1", 0))
        peer.sendto(b"x", transport.get_extra_info("sockname"))
        data, sender = await protocol.until_called("datagram_received")
        assert (data, sender) == (b"x", peer.getsockname())
        for address in (sender, sender[:2], peer.getsockname()):
            transport.sendto(b"answer", address)
            assert await hear(peer) == b"answer"
        await finish(protocol, peer)

    run(main())
