"""Writers, protocols, connections and servers of streams, on each pair of classes and loop (sides)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import os
import socket
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ioxide
from recorder import TIMEOUT, Reports
from sides import Side, side

__all__ = ("side",)

Serve = Callable[[Any, Any], Any]


async def others_end() -> None:
    """Before 3.12 a server does not wait for its connections: their tasks get a moment to close them."""
    for _ in range(200):
        if len(asyncio.all_tasks()) == 1:
            break
        await asyncio.sleep(0.001)


class Connected:
    """A server with one client: `async with` gives the client's reader and writer, and closes everything."""

    def __init__(self, side: Side, serve: Serve, **keywords: Any) -> None:
        self.side, self.serve, self.keywords = side, serve, keywords

    async def __aenter__(self) -> tuple[Any, Any]:
        self.server = await self.side.start_server(self.serve, "127.0.0.1", 0, **self.keywords)
        port = self.server.sockets[0].getsockname()[1]
        self.reader, self.writer = await self.side.open_connection("127.0.0.1", port)
        return self.reader, self.writer

    async def __aexit__(self, *details: object) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()
        self.server.close()
        async with asyncio.timeout(TIMEOUT):
            await self.server.wait_closed()
        await others_end()


async def echo(reader: Any, writer: Any) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


def test_bytes_come_back(side: Side) -> None:
    async def main() -> None:
        async with Connected(side, echo) as (reader, writer):
            assert isinstance(reader, side.StreamReader)
            assert isinstance(writer, side.StreamWriter)
            for size in (1, 1000, 300_000):
                writer.write(b"x" * size)
                await writer.drain()
                assert await reader.readexactly(size) == b"x" * size
            writer.writelines([b"one\n", bytearray(b"two"), memoryview(b"\nthree")])
            writer.write_eof()
            assert [line async for line in reader] == [b"one\n", b"two\n", b"three"]
            assert reader.at_eof()
            assert await reader.read() == b""

    side.run(main())


def test_unix_sockets(side: Side, tmp_path: Path) -> None:
    async def main() -> bytes:
        path = str(tmp_path / "s")
        async with await side.start_unix_server(echo, path):
            reader, writer = await side.open_unix_connection(path=path, limit=10)
            writer.write(b"0123456789abcdef\n")
            with pytest.raises(ValueError, match="chunk is longer than limit"):
                await reader.readline()
            writer.write(b"short\n")
            line = await reader.readline()
            writer.close()
            await writer.wait_closed()
            await others_end()
            return line

    assert side.run(main()) == b"short\n"


def test_an_exception_of_the_callback_is_reported_and_closes(side: Side) -> None:
    async def fail(reader: Any, writer: Any) -> None:
        raise ZeroDivisionError("served")

    async def main() -> Any:
        reports = Reports()
        async with Connected(side, fail) as (reader, _):
            assert await reader.read() == b""
        return reports

    (report,) = side.run(main())
    assert report["message"] == "Unhandled exception in client_connected_cb"
    assert repr(report["exception"]) == "ZeroDivisionError('served')"
    assert isinstance(report["transport"], asyncio.Transport)


def test_a_plain_callback(side: Side) -> None:
    async def main() -> bytes:
        def serve(reader: Any, writer: Any) -> None:
            writer.write(b"plain")
            writer.close()

        async with Connected(side, serve) as (reader, _):
            return await reader.read()  # type: ignore[no-any-return]

    assert side.run(main()) == b"plain"


def test_a_plain_callback_that_raises(side: Side) -> None:
    writers: list[Any] = []

    async def main() -> str:
        def serve(reader: Any, writer: Any) -> None:
            writers.append(writer)
            raise ZeroDivisionError

        reports = Reports()
        async with Connected(side, serve):
            while not reports:
                await asyncio.sleep(0.001)
            assert writers[0].is_closing() == (sys.version_info >= (3, 14))
            writers.pop().close()
        (report,) = reports
        return str(report["message"])

    expected = "Unhandled exception in client_connected_cb" if sys.version_info >= (3, 14) else "Exception in callback"
    assert side.run(main()).startswith(expected)


def test_drain_waits_for_a_slow_peer(side: Side) -> None:
    async def main() -> int:
        near, far = socket.socketpair()
        far.setblocking(False)
        _, writer = await side.open_connection(sock=near)
        written = 0
        while not writer._protocol._paused:
            writer.write(bytes(100_000))
            written += 100_000
            await asyncio.sleep(0)
        waiting = [asyncio.ensure_future(writer.drain()) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        assert len(writer._protocol._drain_waiters) == 3
        waiting[1].cancel()
        await asyncio.sleep(0)
        assert len(writer._protocol._drain_waiters) == 2
        received = 0
        loop = asyncio.get_running_loop()
        while received < written:
            received += len(await loop.sock_recv(far, 1 << 20))
        await asyncio.gather(waiting[0], waiting[2])
        assert not writer._protocol._drain_waiters
        writer.close()
        await writer.wait_closed()
        far.close()
        return written - received

    assert side.run(main()) == 0


def test_drain_fails_after_the_end(side: Side) -> None:
    async def main() -> None:
        near, far = socket.socketpair()
        reader, writer = await side.open_connection(sock=near)
        writer.close()
        with pytest.raises(ConnectionResetError, match="Connection lost"):
            await writer.drain()
        reader.set_exception(KeyError("told"))
        with pytest.raises(KeyError, match="told"):
            await writer.drain()
        await writer.wait_closed()
        far.close()

    side.run(main())


def test_methods_replaced_on_instances_are_used(side: Side) -> None:
    async def main() -> list[Any]:
        near, far = socket.socketpair()
        reader, writer = await side.open_connection(sock=near)
        calls: list[Any] = []
        transport = writer.transport
        write = transport.write
        transport.write = lambda data: (calls.append(("write", data)), write(data))
        writer.write(b"a")
        await writer.drain()
        feed = reader.feed_data
        reader.feed_data = lambda data: (calls.append(("feed", data)), feed(data))
        far.sendall(b"b")
        calls.append(await reader.read(10))
        writer._protocol.data_received = lambda data: calls.append(("received", data))
        transport.set_protocol(writer._protocol)
        far.sendall(b"c")
        while len(calls) < 4:
            await asyncio.sleep(0.001)
        writer.close()
        await writer.wait_closed()
        far.close()
        return calls

    assert side.run(main()) == [("write", b"a"), ("feed", b"b"), b"b", ("received", b"c")]


def test_subclasses(side: Side) -> None:
    log: list[Any] = []

    class Reader(side.StreamReader):  # type: ignore[misc, name-defined]
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            self.extra = 1

        def feed_data(self, data: bytes) -> None:
            log.append(data)
            super().feed_data(data)

        async def readuntil(self, separator: Any = b"\n") -> bytes:
            log.append("readuntil")
            return await super().readuntil(separator)  # type: ignore[no-any-return]

    class Protocol(side.StreamReaderProtocol):  # type: ignore[misc, name-defined]
        def eof_received(self) -> Any:
            log.append("eof")
            return super().eof_received()

    async def main() -> list[bytes]:
        loop = asyncio.get_running_loop()
        reader = Reader(limit=50, loop=loop)
        protocol = Protocol(reader, loop=loop)
        near, far = socket.socketpair()
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        writer = side.StreamWriter(transport, protocol, reader=reader, loop=loop)
        far.sendall(b"line\nrest")
        lines = [await reader.readline()]
        far.close()
        lines.append(await reader.readline())
        writer.close()
        await writer.wait_closed()
        return lines

    assert side.run(main()) == [b"line\n", b"rest"]
    assert log == ["readuntil", b"line\nrest", "readuntil", "eof"] or log[1:] == [b"line\nrest", "readuntil", "eof"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # __del__ of writers that were refused
def test_keywords_and_refusals(side: Side) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(ValueError, match="Limit cannot be <= 0"):
            side.StreamReader(limit=0, loop=loop)
        with pytest.raises(TypeError):
            side.StreamReader(loop=loop, size=3)
        with pytest.raises(TypeError):
            side.StreamWriter()
        with pytest.raises(TypeError):
            await side.open_connection("127.0.0.1", 1, 2)
        with pytest.raises(TypeError):
            await side.open_connection("127.0.0.1", 1, nothing=1)
        with pytest.raises(TypeError):
            await side.start_server()
        reader = side.StreamReader(loop=loop)
        protocol = side.StreamReaderProtocol(reader, client_connected_cb=None, loop=loop)
        with pytest.raises(AssertionError):
            side.StreamWriter(None, protocol, object(), loop)
        reader.set_transport(asyncio.Transport())
        with pytest.raises(AssertionError, match="Transport already set"):
            reader.set_transport(asyncio.Transport())
        reader.feed_eof()
        with pytest.raises(AssertionError, match="feed_data after feed_eof"):
            reader.feed_data(b"x")

    side.run(main())


def test_a_loop_is_needed(side: Side) -> None:
    coroutine = side.open_connection("127.0.0.1", 1)
    with pytest.raises(RuntimeError, match="no running event loop"):
        coroutine.send(None)


def test_the_loop_is_the_running_one_by_default(side: Side) -> None:
    async def main() -> None:
        assert side.StreamReader()._loop is asyncio.get_running_loop()
        assert side.StreamReaderProtocol(side.StreamReader())._loop is asyncio.get_running_loop()

    side.run(main())


def test_they_are_asyncios(side: Side) -> None:
    for name in ("StreamReader", "StreamReaderProtocol", "StreamWriter"):
        assert issubclass(getattr(side, name), getattr(asyncio, name))
    for function in (side.open_connection, side.start_server, side.StreamReader.read, side.StreamReader.readline):
        assert inspect.iscoroutinefunction(function)
    for function in (side.StreamReader.readuntil, side.StreamReader.readexactly, side.StreamWriter.drain):
        assert inspect.iscoroutinefunction(function)
    assert inspect.iscoroutinefunction(side.StreamWriter.wait_closed)
    assert list(inspect.signature(side.StreamReader.read).parameters) == ["self", "n"]
    assert str(inspect.signature(side.open_connection)) == "(host=None, port=None, *, limit=65536, **kwds)"


def test_a_writer_that_is_dropped_open_warns(side: Side) -> None:
    async def main() -> None:
        near, far = socket.socketpair()
        _reader, writer = await side.open_connection(sock=near)
        protocol = writer._protocol
        with pytest.warns(ResourceWarning, match=r"unclosed <StreamWriter transport=.*reader=<StreamReader"):
            del writer
            gc.collect()
        await protocol._get_close_waiter(None)
        far.close()

    side.run(main())


def test_a_reader_that_is_dropped_takes_nothing(side: Side) -> None:
    async def main() -> None:
        near, far = socket.socketpair()
        reader, writer = await side.open_connection(sock=near)
        reference = weakref.ref(reader)
        writer._reader = None
        del reader
        gc.collect()
        assert reference() is None
        assert writer._protocol._stream_reader is None
        far.sendall(b"nobody reads this")
        far.close()
        await asyncio.sleep(0.01)
        writer.close()
        await writer.wait_closed()

    side.run(main())


def test_two_readers_at_once(side: Side) -> None:
    async def main() -> str:
        reader = side.StreamReader(loop=asyncio.get_running_loop())
        first = asyncio.ensure_future(reader.read(1))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError) as caught:
            await reader.readexactly(1)
        reader.feed_data(b"x")
        assert await first == b"x"
        return str(caught.value)

    expected = "readexactly() called while another coroutine is already waiting for incoming data"
    assert side.run(main()) == expected


def test_reading_what_is_there_does_not_suspend(side: Side) -> None:
    async def main() -> None:
        reader = side.StreamReader(loop=asyncio.get_running_loop())
        reader.feed_data(b"one\ntwo\n12345" * 3)
        turns = 0

        def turn() -> None:
            nonlocal turns
            turns += 1

        asyncio.get_running_loop().call_soon(turn)
        for reading in (reader.readline, lambda: reader.readexactly(4), lambda: reader.readuntil(b"5"), lambda: reader.read(9)):
            await reading()
        assert turns == 0

    side.run(main())


def test_subprocess_streams(side: Side) -> None:
    async def main() -> bytes:
        program = "import sys; sys.stdout.write(sys.stdin.readline()); sys.stderr.write('e' * 70000)"
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdin=-1, stdout=-1, stderr=-1)
        output, errors = await process.communicate(b"in and out\n")
        assert errors == b"e" * 70000
        return output

    assert side.run(main()) == b"in and out\n"


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_thousand_connections_leave_nothing(side: Side) -> None:
    classes = (side.StreamReader, side.StreamReaderProtocol, side.StreamWriter, asyncio.Task, asyncio.Transport)

    def count() -> list[int]:
        gc.collect()
        return [sum(isinstance(each, kind) for each in gc.get_objects()) for kind in classes]

    async def main() -> tuple[Any, Any]:
        found = []
        server = await side.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def connect() -> None:
            reader, writer = await side.open_connection("127.0.0.1", port)
            writer.write(b"hello\n")
            assert await reader.readline() == b"hello\n"
            writer.close()
            await writer.wait_closed()

        for rounds in (1, 20):
            for _ in range(rounds):
                await asyncio.gather(*(connect() for _ in range(50)))
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
            found.append((count(), descriptors()))
        server.close()
        await server.wait_closed()
        return found[0], found[1]

    before, after = side.run(main())
    assert after == before


def test_a_forgotten_loop_takes_its_readers_along(side: Side) -> None:
    def forget() -> weakref.ref[Any]:
        loop = side.loop_factory()
        reader = side.StreamReader(loop=loop)

        async def read() -> None:
            await reader.readline()

        task: Any = loop.create_task(read())
        task._log_destroy_pending = False
        for _ in range(2):
            loop.call_soon(loop.stop)
            loop.run_forever()
        assert reader._waiter is not None
        loop.close()
        return weakref.ref(reader)

    reference = forget()
    gc.collect()
    assert reference() is None


def test_native_names_serve_asyncios_functions() -> None:
    async def main() -> bytes:
        async with Connected(Side(asyncio, ioxide.new_event_loop), echo) as (reader, writer):
            assert type(reader) is ioxide.StreamReader
            writer.write(b"native")
            return await reader.readexactly(6)  # type: ignore[no-any-return]

    assert ioxide.run(main()) == b"native"
