"""Accepting connections, and what goes wrong with it; Unix servers."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import resource
import socket
import stat
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ioxide
from recorder import Recorder
from serving import dial, outcome, serve, until

Run = Callable[..., Any]

KNOWS_CLIENTS = sys.version_info >= (3, 13)


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
