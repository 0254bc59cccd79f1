"""create_connection, create_unix_connection, connect_accepted_socket: arguments, addresses, errors, cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ioxide
from recorder import Recorder, finish, receive
from serving import outcome

Run = Callable[..., Any]

NOBODY = "127.0.0.1"
NO_SUCH_ADDRESS = "192.0.2.1"  # TEST-NET-1: no machine has it


def listener(host: str = "127.0.0.1") -> socket.socket:
    return socket.create_server((host, 0))


def refusing_port() -> int:
    """A port that nobody listens on: its owner was just closed."""
    with listener() as owner:
        return int(owner.getsockname()[1])


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


WRONG_ARGUMENTS: list[tuple[dict[str, Any], type, str]] = [
    ({}, ValueError, "host and port was not specified and no sock specified"),
    ({"server_hostname": "x", "host": "x", "port": 1}, ValueError, "server_hostname is only meaningful with ssl"),
    ({"ssl": True}, ValueError, "You must set server_hostname when using ssl without a host"),
    ({"ssl": True, "host": ""}, ValueError, "You must set server_hostname when using ssl without a host"),
    ({"port": 1, "ssl_handshake_timeout": 1}, ValueError, "ssl_handshake_timeout is only meaningful with ssl"),
    ({"port": 1, "ssl_shutdown_timeout": 1}, ValueError, "ssl_shutdown_timeout is only meaningful with ssl"),
]


@pytest.mark.parametrize("arguments,expected,message", WRONG_ARGUMENTS)
def test_wrong_arguments(run: Run, arguments: dict[str, Any], expected: type, message: str) -> None:
    async def main() -> Any:
        return await outcome(asyncio.get_running_loop().create_connection(asyncio.Protocol, **arguments))

    assert run(main()) == (expected, message)


def test_unknown_keywords_are_refused_by_the_call_itself(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for method in (loop.create_connection, loop.create_server, loop.create_unix_server):
            with pytest.raises(TypeError, match="nonsense"):
                method(asyncio.Protocol, nonsense=1)  # type: ignore[operator]
            with pytest.raises(TypeError, match="protocol_factory"):
                method()  # type: ignore[operator]

    run(main())


NEWER_KEYWORDS = [
    ("create_connection", "all_errors", (3, 12)),
    ("create_server", "keep_alive", (3, 13)),
    ("create_unix_server", "cleanup_socket", (3, 13)),
]


@pytest.mark.parametrize(("method", "keyword", "version"), NEWER_KEYWORDS)
def test_newer_keywords_are_there_on_every_version(method: str, keyword: str, version: tuple[int, int]) -> None:
    def takes_keyword(loop: asyncio.AbstractEventLoop) -> bool:
        with contextlib.closing(loop), contextlib.suppress(TypeError):
            getattr(loop, method)(asyncio.Protocol, **{keyword: True}).close()
            return True
        return False

    assert takes_keyword(asyncio.SelectorEventLoop()) is (sys.version_info >= version)
    assert takes_keyword(ioxide.new_event_loop())


def test_host_and_socket_exclude_each_other(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as given:
            message = (ValueError, "host/port and sock can not be specified at the same time")
            assert await outcome(loop.create_connection(asyncio.Protocol, "x", 1, sock=given)) == message
            assert await outcome(loop.create_server(asyncio.Protocol, "x", 1, sock=given)) == message

    run(main())


def test_a_datagram_socket_is_refused(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(type=socket.SOCK_DGRAM) as given:
            message = (ValueError, f"A Stream Socket was expected, got {given!r}")
            assert await outcome(loop.create_connection(asyncio.Protocol, sock=given)) == message
            assert await outcome(loop.create_server(asyncio.Protocol, sock=given)) == message
            assert await outcome(loop.connect_accepted_socket(asyncio.Protocol, given)) == message
            message = (ValueError, f"A UNIX Domain Stream Socket was expected, got {given!r}")
            assert await outcome(loop.create_unix_connection(asyncio.Protocol, sock=given)) == message
            assert await outcome(loop.create_unix_server(asyncio.Protocol, sock=given)) == message

    run(main())


def test_a_connected_socket_is_taken_over(run: Run) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        protocol = Recorder()
        transport, returned = await asyncio.get_running_loop().create_connection(lambda: protocol, sock=ours)
        assert returned is protocol and not ours.getblocking()
        transport.write(b"x")
        theirs.setblocking(False)
        assert await receive(theirs, 1) == b"x"
        await finish(protocol, theirs)
        assert ours.fileno() == -1

    run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", b"127.0.0.1", "localhost"])
@pytest.mark.parametrize("as_port", [int, str, lambda port: str(port).encode()])
def test_forms_of_host_and_port(run: Run, host: Any, as_port: Callable[[int], Any]) -> None:
    async def main() -> None:
        with listener() as server:
            port = server.getsockname()[1]
            protocol = Recorder()
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_connection(lambda: protocol, host, as_port(port), family=socket.AF_INET)
            assert transport.get_extra_info("peername") == ("127.0.0.1", port)
            peer, _ = server.accept()
            await finish(protocol, peer)

    run(main())


def test_a_refused_connection(run: Run) -> None:
    port = refusing_port()

    async def main() -> Any:
        return await outcome(asyncio.get_running_loop().create_connection(asyncio.Protocol, "127.0.0.1", port))

    assert run(main()) == (ConnectionRefusedError, f"[Errno 111] Connect call failed ('127.0.0.1', {port})")


def several(loop: Any, *addresses: tuple[str, int]) -> None:
    """Has the loop's getaddrinfo answer these addresses."""

    async def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    loop.getaddrinfo = getaddrinfo


@pytest.mark.parametrize("delay", [None, 0.01])
def test_errors_of_several_addresses_are_combined(run: Run, delay: float | None) -> None:
    first, second = refusing_port(), refusing_port()

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        several(loop, (NOBODY, first), (NOBODY, second))
        return await outcome(loop.create_connection(asyncio.Protocol, "name", 1, happy_eyeballs_delay=delay))

    failed = "[Errno 111] Connect call failed ('127.0.0.1', {})"
    assert run(main()) == (OSError, f"Multiple exceptions: {failed.format(first)}, {failed.format(second)}")


def test_the_same_error_of_several_addresses_is_raised_once(run: Run) -> None:
    port = refusing_port()

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        several(loop, (NOBODY, port), (NOBODY, port))
        return await outcome(loop.create_connection(asyncio.Protocol, "name", 1))

    assert run(main()) == (ConnectionRefusedError, f"[Errno 111] Connect call failed ('127.0.0.1', {port})")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="all_errors came with 3.12")
def test_all_errors_makes_a_group(run: Run) -> None:
    ports = [refusing_port(), refusing_port()]

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        several(loop, *((NOBODY, port) for port in ports))
        with pytest.raises(ExceptionGroup) as caught:
            await loop.create_connection(asyncio.Protocol, "name", 1, all_errors=True)  # type: ignore[call-overload]
        return caught.value.message, [(type(error), str(error)) for error in caught.value.exceptions]

    failed = "[Errno 111] Connect call failed ('127.0.0.1', {})"
    assert run(main()) == (
        "create_connection failed",
        [(ConnectionRefusedError, failed.format(port)) for port in ports],
    )


@pytest.mark.parametrize("delay", [None, 0.01, 10])
def test_the_first_address_that_answers_is_taken(run: Run, delay: float | None) -> None:
    dead = refusing_port()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        before = open_descriptors()
        with listener() as server:
            several(loop, (NOBODY, dead), server.getsockname(), (NOBODY, dead))
            protocol = Recorder()
            transport, _ = await loop.create_connection(lambda: protocol, "name", 1, happy_eyeballs_delay=delay)
            assert transport.get_extra_info("peername") == server.getsockname()
            peer, _ = server.accept()
            await finish(protocol, peer)
        assert open_descriptors() == before

    run(main())


def test_happy_eyeballs_do_not_wait_for_a_silent_address(run: Run) -> None:
    async def main() -> list[str]:
        loop: Any = asyncio.get_running_loop()
        tried: list[Any] = []
        with listener() as server:
            several(loop, ("silent", 1), server.getsockname())
            connect = loop.sock_connect

            async def sock_connect(sock: socket.socket, address: Any) -> None:
                tried.append(address[0])
                if address[0] == "silent":
                    try:
                        await loop.create_future()
                    finally:
                        tried.append("cancelled")
                await connect(sock, address)

            loop.sock_connect = sock_connect
            transport, _ = await loop.create_connection(Recorder, "name", 1, happy_eyeballs_delay=0.001)
            await finish(transport.get_protocol(), server.accept()[0])
        return tried

    assert run(main()) == ["silent", "127.0.0.1", "cancelled"]


def test_interleave_takes_families_in_turn(run: Run) -> None:
    async def main(interleave: int | None) -> list[int]:
        loop: Any = asyncio.get_running_loop()
        tried: list[int] = []

        async def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
            six = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)) for port in (61, 62, 63)]
            return six + [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in (41, 42)]

        async def sock_connect(sock: socket.socket, address: Any) -> None:
            tried.append(address[1])
            raise OSError("refused")

        loop.getaddrinfo, loop.sock_connect = getaddrinfo, sock_connect
        with pytest.raises(OSError, match="refused"):
            await loop.create_connection(asyncio.Protocol, "name", 1, interleave=interleave)
        return tried

    assert run(main(None)) == [61, 62, 63, 41, 42]
    assert run(main(0)) == [61, 62, 63, 41, 42]
    assert run(main(1)) == [61, 41, 62, 42, 63]
    assert run(main(2)) == [61, 62, 41, 63, 42]


def test_local_addresses(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as server:
            protocol = Recorder()
            arguments = (lambda: protocol, *server.getsockname())
            transport, _ = await loop.create_connection(*arguments, local_addr=("127.0.0.1", 0))
            assert transport.get_extra_info("sockname")[0] == "127.0.0.1"
            peer, _ = server.accept()
            await finish(protocol, peer)
            family = socket.AF_INET
            message = (OSError, f"no matching local address with {family=} found")
            assert await outcome(loop.create_connection(*arguments, local_addr=("::1", 0))) == message

    run(main())


def test_a_local_address_that_is_not_ours(run: Run) -> None:
    """What is said differs from one patch release of Python to the next: both loops must say the same."""

    async def main() -> Any:
        with listener() as server:
            loop = asyncio.get_running_loop()
            arguments = (asyncio.Protocol, *server.getsockname())
            return await outcome(loop.create_connection(*arguments, local_addr=(NO_SUCH_ADDRESS, 0)))

    kind, text = run(main())
    assert kind is OSError
    start = f"[Errno 99] error while attempting to bind on address ('{NO_SUCH_ADDRESS}', 0): "
    said = asyncio.base_events.BaseEventLoop._connect_sock.__code__.co_names  # type: ignore[attr-defined]
    assert text == start + ("" if "strerror" in said else "[errno 99] ") + "cannot assign requested address"


def test_an_empty_look_up(run: Run) -> None:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        several(loop)
        return await outcome(loop.create_connection(asyncio.Protocol, "name", 1))

    assert run(main()) == (OSError, "getaddrinfo() returned empty list")


def test_an_overridden_transport_is_used(run: Run) -> None:
    async def main() -> int:
        loop: Any = asyncio.get_running_loop()
        made = []
        make = loop._make_socket_transport

        def make_socket_transport(*arguments: Any, **keywords: Any) -> Any:
            made.append(make(*arguments, **keywords))
            return made[-1]

        loop._make_socket_transport = make_socket_transport
        accepted = Recorder()
        server = await loop.create_server(lambda: accepted, "127.0.0.1", 0)
        protocol = Recorder()
        transport, _ = await loop.create_connection(lambda: protocol, *server.sockets[0].getsockname())
        await accepted.until_called("connection_made")
        assert set(made) == {transport, accepted.transport}
        transport.close()
        await accepted.until_called("connection_lost")
        server.close()
        await server.wait_closed()
        return len(made)

    assert run(main()) == 2


def test_an_error_of_the_factory_leaves_nothing_open(run: Run) -> None:
    async def main() -> None:
        before = open_descriptors()
        with listener() as server, pytest.raises(ZeroDivisionError):
            await asyncio.get_running_loop().create_connection(lambda: 1 / 0, *server.getsockname())  # type: ignore
        gc.collect()  # up to 3.13 asyncio leaves the socket to its finalizer
        assert open_descriptors() == before

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        run(main())


def test_a_cancelled_connect_closes_its_own_socket_and_no_other(run: Run) -> None:
    """The number of the socket is given to another file as soon as it is free: that one must stay open."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        several(loop, ("silent", 1))
        started, numbers = asyncio.Event(), []

        async def sock_connect(sock: socket.socket, address: Any) -> None:
            numbers.append(sock.fileno())
            started.set()
            try:
                await loop.create_future()
            finally:
                sock.close()
                canary.append(os.open("/dev/null", os.O_RDONLY))

        canary: list[int] = []
        loop.sock_connect = sock_connect
        task = asyncio.ensure_future(loop.create_connection(asyncio.Protocol, "name", 1))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert canary == numbers
        os.fstat(canary[0])
        os.close(canary[0])

    run(main())


def test_cancelled_connects_leave_no_descriptor(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen(0)
            await asyncio.sleep(0)
            before = open_descriptors()
            attempts = [loop.create_connection(asyncio.Protocol, *server.getsockname()) for _ in range(20)]
            tasks = [asyncio.ensure_future(attempt) for attempt in attempts]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if not isinstance(result, BaseException):
                    result[0].abort()  # it was quicker than its cancellation
            for _ in range(3):
                await asyncio.sleep(0)
            assert open_descriptors() == before

    run(main())


def test_a_connect_that_nobody_finishes_closes_its_socket(loop: asyncio.AbstractEventLoop) -> None:
    several(loop, ("silent", 1))
    sockets = []

    class Endless:
        def __await__(self) -> Any:
            yield

    def sock_connect(sock: socket.socket, address: Any) -> Any:
        sockets.append(sock)
        return Endless()

    loop.sock_connect = sock_connect  # type: ignore[method-assign, assignment]
    coroutine: Any = loop.create_connection(asyncio.Protocol, "name", 1)
    coroutine.send(None)
    assert sockets[0].fileno() >= 0
    del coroutine
    assert sockets[0].fileno() == -1


def test_unix_connections(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for path in (tmp_path / "path", str(tmp_path / "text"), os.fsencode(tmp_path / "bytes"), "\0ioxide"):
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(os.fspath(path))
                server.listen()
                protocol = Recorder()
                transport, _ = await loop.create_unix_connection(lambda: protocol, path)  # type: ignore[arg-type]
                peer, _ = server.accept()
                assert transport.get_extra_info("socket").family == socket.AF_UNIX
                await finish(protocol, peer)

    run(main())


def test_unix_connection_errors(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        before = open_descriptors()
        connect = loop.create_unix_connection
        assert await outcome(connect(asyncio.Protocol)) == (ValueError, "no path and sock were specified")
        message = (ValueError, "you have to pass server_hostname when using ssl")
        assert await outcome(connect(asyncio.Protocol, "x", ssl=True)) == message
        message = (ValueError, "server_hostname is only meaningful with ssl")
        assert await outcome(connect(asyncio.Protocol, "x", server_hostname="x")) == message
        assert await outcome(connect(asyncio.Protocol, "x", server_hostname=1)) == (AssertionError, "")
        with socket.socket(socket.AF_UNIX) as given:
            message = (ValueError, "path and sock can not be specified at the same time")
            assert await outcome(connect(asyncio.Protocol, "x", sock=given)) == message
        missing = await outcome(connect(asyncio.Protocol, tmp_path / "missing"))
        assert missing == (FileNotFoundError, "[Errno 2] No such file or directory")
        assert open_descriptors() == before

    run(main())


def test_an_accepted_socket(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as server, socket.create_connection(server.getsockname()) as peer:
            accepted, _ = server.accept()
            protocol = Recorder()
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, accepted)
            transport.write(b"x")
            peer.setblocking(False)
            assert await receive(peer, 1) == b"x"
            await finish(protocol, peer)

    run(main())


def test_debug_mode_tells_of_connections(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> str:
        with listener() as server:
            protocol = Recorder()
            address = server.getsockname()
            await asyncio.get_running_loop().create_connection(lambda: protocol, *address)
            line = f" connected to {address[0]}:{address[1]!r}: ("
            peer, _ = server.accept()
            await finish(protocol, peer)
        return line

    with caplog.at_level("DEBUG", "asyncio"):
        line = run(main(), debug=True)
    assert any(line in message for message in caplog.messages)
