"""Very many TLS handshakes that never come: a server goes on serving beside them, gives them up in time, and keeps nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from certificates import Authority
from recorder import TIMEOUT, Recorder

Run = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("records_pass")
SILENT = 2000
DESCRIPTORS = 2 * SILENT + 500


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        pytest.skip(f"only {hard} descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, DESCRIPTORS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def transports() -> int:
    gc.collect()
    return sum(isinstance(each, (asyncio.BaseTransport, ssl.SSLObject)) for each in gc.get_objects())


async def connect_silently(address: tuple[str, int]) -> list[socket.socket]:
    """So many sockets that are connected and say nothing."""
    loop = asyncio.get_running_loop()
    sockets = []
    for _ in range(SILENT):
        sock = socket.socket()
        sock.setblocking(False)
        await loop.sock_connect(sock, address)
        sockets.append(sock)
    return sockets


async def ask(address: tuple[str, int], authority: Authority) -> bytes:
    context = authority.client_context()
    reader, writer = await asyncio.open_connection(*address, ssl=context, server_hostname="localhost")
    writer.write(b"question\n")
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return answer


class Answer(Recorder):
    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())


@pytest.mark.usefixtures("many_descriptors")
def test_two_thousand_silent_clients(run: Run, authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        reports: list[Any] = []
        loop.set_exception_handler(lambda _, context: reports.append(context))
        made: list[Answer] = []

        def factory() -> Answer:
            made.append(Answer())
            return made[-1]

        options = {"ssl": authority.server_context(), "ssl_handshake_timeout": 3, "backlog": 4096}
        server = await loop.create_server(factory, "127.0.0.1", 0, **options)
        address = server.sockets[0].getsockname()
        assert await ask(address, authority) == b"QUESTION\n"
        await made[0].until_called("connection_lost")
        before, descriptors = transports(), set(os.listdir("/proc/self/fd"))
        silent = await connect_silently(address)
        async with asyncio.timeout(TIMEOUT):
            assert await asyncio.gather(*(ask(address, authority) for _ in range(5))) == [b"QUESTION\n"] * 5
            for sock in silent:
                assert await loop.sock_recv(sock, 1) == b""
                sock.close()
        for answer in made:
            if "connection_made" in answer.names:
                await answer.until_called("connection_lost")
        answered = sum("connection_made" in answer.names for answer in made)
        assert answered == 6 and len(made) == SILENT + 6
        del answer
        made.clear()
        await asyncio.sleep(0)
        assert reports == []
        assert set(os.listdir("/proc/self/fd")) == descriptors
        assert transports() <= before
        assert await ask(address, authority) == b"QUESTION\n"
        server.close()
        await server.wait_closed()

    run(main())
    assert caplog.records == []
