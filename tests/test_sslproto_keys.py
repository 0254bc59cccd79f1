"""Keys that change in the middle of a TLS connection: KeyUpdate of TLS 1.3, renegotiation of TLS 1.2. The peer is the
`openssl` command, which does either when a line of its input says so.

Invariants
1. A command is one write of one line, after everything before it has been answered: the peer looks at the beginnings of what it
   reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import ssl
import termios
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from certificates import Authority
from recorder import TIMEOUT, Recorder

Run = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("records_pass")
BIG = 300_000


class Peer:
    """A running `openssl s_client` or `s_server`, whose input and output are pipes of the test's own loop."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None and process.stdout is not None
        self.process, self.stdin, self.stdout = process, process.stdin, process.stdout

    def say(self, line: str) -> None:
        self.stdin.write(f"{line}\n".encode())

    async def has_read(self) -> None:
        """Waits until nothing is left in the pipe to it."""
        pipe = self.stdin.get_extra_info("pipe").fileno()
        async with asyncio.timeout(TIMEOUT):
            while any(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))):
                await asyncio.sleep(0.001)

    async def hear(self, text: bytes) -> bytes:
        async with asyncio.timeout(TIMEOUT):
            return await self.stdout.readuntil(text)


@contextlib.asynccontextmanager
async def openssl(*arguments: str) -> AsyncIterator[Peer]:
    process = await asyncio.create_subprocess_exec(
        "openssl",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=1 << 20,
    )
    peer = Peer(process)
    try:
        yield peer
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        async with asyncio.timeout(TIMEOUT):
            await process.communicate()


class Echo(Recorder):
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.write(b"<" + data.strip() + b">\n")


@contextlib.asynccontextmanager
async def server_and_client(authority: Authority, version: str) -> AsyncIterator[tuple[Echo, Peer]]:
    """A server under test, and `openssl s_client` at its other end."""
    echo = Echo()
    server = await asyncio.get_running_loop().create_server(lambda: echo, "127.0.0.1", 0, ssl=authority.server_context())
    port = server.sockets[0].getsockname()[1]
    options = ("-connect", f"127.0.0.1:{port}", "-CAfile", str(authority.folder / "ca.pem"), "-servername", "localhost")
    try:
        async with openssl("s_client", version, *options) as peer:
            await echo.until_called("connection_made")
            yield echo, peer
        await echo.until_called("connection_lost")
    finally:
        server.close()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def client_and_server(authority: Authority, version: str) -> AsyncIterator[tuple[Recorder, Peer]]:
    """A client under test, and `openssl s_server` at its other end."""
    certificate = str(authority.folder / "server.pem")
    async with openssl("s_server", version, "-accept", "127.0.0.1:0", "-cert", certificate) as peer:
        await peer.hear(b"ACCEPT 127.0.0.1:")
        port = int(await peer.hear(b"\n"))
        protocol = Recorder()
        options = {"ssl": authority.client_context(), "server_hostname": "localhost"}
        await asyncio.get_running_loop().create_connection(lambda: protocol, "127.0.0.1", port, **options)
        yield protocol, peer
        protocol.transport.abort()
        await protocol.until_called("connection_lost")


@pytest.mark.parametrize("command", ["k", "K"], ids=["for one direction", "for both directions"])
def test_a_server_whose_client_updates_its_keys(run: Run, authority: Authority, command: str) -> None:
    async def main() -> bytes:
        async with server_and_client(authority, "-tls1_3") as (echo, peer):
            for number in range(5):
                peer.say(f"line {number}")
                await peer.hear(b"<line %d>\n" % number)
                peer.say(command)
                await peer.hear(b"KEYUPDATE")
            peer.say("last")
            await peer.hear(b"<last>\n")
            echo.transport.write(b"y" * BIG + b"end of much\n")
            await peer.hear(b"end of much\n")
            assert "connection_lost" not in echo.names
            return echo.received

    assert run(main()) == b"".join(b"line %d\n" % number for number in range(5)) + b"last\n"


@pytest.mark.parametrize("command", ["k", "K"], ids=["for one direction", "for both directions"])
def test_a_client_whose_server_updates_its_keys(run: Run, authority: Authority, command: str) -> None:
    async def main() -> bytes:
        async with client_and_server(authority, "-tls1_3") as (protocol, peer):
            for number in range(5):
                protocol.transport.write(b"line %d\n" % number)
                await peer.hear(b"line %d\n" % number)
                peer.say(command)
                await peer.has_read()
                protocol.transport.write(b"more %d\n" % number)
                await peer.hear(b"more %d\n" % number)
                peer.say(f"answer {number}")
                await protocol.until(lambda end=b"answer %d\n" % number: protocol.received.endswith(end))  # type: ignore[misc]
            protocol.transport.write(b"y" * BIG + b"end of much\n")
            await peer.hear(b"end of much\n")
            return protocol.received

    assert run(main()) == b"".join(b"answer %d\n" % number for number in range(5))


def test_a_client_whose_server_renegotiates(run: Run, authority: Authority) -> None:
    """TLS 1.2: a handshake in the middle of the data, which the client answers while it reads."""

    async def main() -> bytes:
        async with client_and_server(authority, "-tls1_2") as (protocol, peer):
            assert protocol.transport.get_extra_info("ssl_object").version() == "TLSv1.2"
            for number in range(3):
                protocol.transport.write(b"line %d\n" % number)
                await peer.hear(b"line %d\n" % number)
                peer.say("r")
                await peer.hear(b"SSL_do_handshake -> 1")
                protocol.transport.write(b"more %d\n" % number)
                await peer.hear(b"more %d\n" % number)
                peer.say(f"answer {number}")
                await protocol.until(lambda end=b"answer %d\n" % number: protocol.received.endswith(end))  # type: ignore[misc]
            return protocol.received

    assert run(main()) == b"answer 0\nanswer 1\nanswer 2\n"


def test_a_server_whose_client_wants_to_renegotiate(run: Run, authority: Authority) -> None:
    """TLS 1.2: OpenSSL 3 refuses, older ones do it; the server under test does what its own context says."""

    async def main() -> None:
        async with server_and_client(authority, "-tls1_2") as (echo, peer):
            peer.say("before")
            await peer.hear(b"<before>\n")
            peer.say("R")
            await peer.hear(b"RENEGOTIATING\n")
            if ssl.OPENSSL_VERSION_INFO < (3,):
                peer.say("after")
                await peer.hear(b"<after>\n")
            else:
                await peer.hear(b"no renegotiation")
                await echo.until_called("connection_lost")
            assert echo.received.startswith(b"before\n")

    run(main())


def test_keys_change_while_much_is_on_its_way(run: Run, authority: Authority) -> None:
    """KeyUpdate, renewed in every pause of a large transfer, loses and repeats nothing."""
    data = os.urandom(200_000).hex().encode()

    async def main() -> None:
        async with server_and_client(authority, "-tls1_3") as (echo, peer):
            for part in range(0, len(data), 40_000):
                echo.transport.write(data[part : part + 40_000])
                peer.say("K")
                echo.transport.write(b"\n")
            echo.transport.write(b"the end\n")
            heard = await peer.hear(b"the end\n")
            lines = heard.replace(b"KEYUPDATE\n", b"").split(b"\n")
            assert b"".join(line[-40_000:] for line in lines if len(line) >= 40_000) == data
            assert "connection_lost" not in echo.names

    run(main())
