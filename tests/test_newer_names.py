"""What newer versions of asyncio brought is there on every version of Python, and does the same.

Each test runs on asyncio where its version has it, which is the oracle, and on ioxide everywhere.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ioxide

Run = Callable[..., Any]


def newer(*version: int) -> pytest.MarkDecorator:
    """Runs the test on asyncio from that version on, and on ioxide."""
    runs = [pytest.param(ioxide.run, id="ioxide")]
    if sys.version_info >= version:
        runs.append(pytest.param(asyncio.run, id="asyncio"))
    return pytest.mark.parametrize("run", runs)


@newer(3, 13)
def test_the_nearest_of_several_separators(run: Run) -> None:
    async def main() -> list[bytes]:
        reader = asyncio.StreamReader()
        reader.feed_data(b"a;b, c\n")
        reader.feed_eof()
        return [await reader.readuntil((b",", b";", b", ")) for _ in range(2)]

    assert run(main()) == [b"a;", b"b,"]


@newer(3, 13)
@pytest.mark.parametrize("cleanup_socket", [True, False])
def test_the_file_of_a_unix_socket(run: Run, tmp_path: Path, cleanup_socket: bool) -> None:
    path = tmp_path / "server"

    async def main() -> None:
        create: Any = asyncio.get_running_loop().create_unix_server
        (await create(asyncio.Protocol, path, cleanup_socket=cleanup_socket)).close()

    run(main())
    assert path.exists() is not cleanup_socket


@newer(3, 13)
@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
def test_the_clients_of_a_server_are_closed(run: Run, method: str) -> None:
    async def main() -> list[bytes]:
        connected: asyncio.Queue[None] = asyncio.Queue()

        class Greeter(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                connected.put_nowait(None)

        server: Any = await asyncio.get_running_loop().create_server(Greeter, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()[:2]
        clients = [await asyncio.open_connection(*address) for _ in range(3)]
        for _ in clients:
            await connected.get()
        server.close()
        getattr(server, method)()
        ends = [await asyncio.wait_for(reader.read(), 30) for reader, _ in clients]
        await server.wait_closed()
        for _, writer in clients:
            writer.close()
        return ends

    assert run(main()) == [b"", b"", b""]


@newer(3, 13)
def test_a_server_keeps_connections_alive(run: Run) -> None:
    async def main() -> int:
        create: Any = asyncio.get_running_loop().create_server
        server = await create(asyncio.Protocol, "127.0.0.1", 0, keep_alive=True)
        with server.sockets[0].dup() as copy:
            server.close()
            return int(copy.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    assert run(main()) == 1


@newer(3, 14)
def test_a_task_starts_at_once(run: Run) -> None:
    async def main() -> list[str]:
        log: list[str] = []

        async def job(name: str) -> None:
            log.append(name)
            await asyncio.sleep(0)

        loop: Any = asyncio.get_running_loop()
        create: Any = asyncio.create_task
        tasks = [loop.create_task(job("loop"), eager_start=True), create(job("function"), eager_start=True)]
        log.append("made")
        async with asyncio.TaskGroup() as group:
            eager: Any = group.create_task
            eager(job("group"), eager_start=True)
            eager(job("later"), eager_start=False)
            log.append("made")
        await asyncio.gather(*tasks)
        return log

    assert run(main()) == ["loop", "function", "made", "group", "made", "later"]


@newer(3, 14)
def test_a_factory_is_told_to_start_at_once(run: Run) -> None:
    async def main() -> list[dict[str, Any]]:
        seen = []

        def factory(loop: asyncio.AbstractEventLoop, coro: Any, **keywords: Any) -> asyncio.Task[None]:
            seen.append(keywords)
            return asyncio.Task(coro, loop=loop, **keywords)

        loop: Any = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        await loop.create_task(asyncio.sleep(0), eager_start=True)
        loop.set_task_factory(None)
        return seen

    assert run(main()) == [{"eager_start": True}]
