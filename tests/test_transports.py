"""The transport of a stream socket: what a protocol sees of it, and in which order."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import socket
import struct
import sys
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]

TIMEOUT = 20  # seconds; only a test that fails waits so long
MEGABYTE = bytes(range(256)) * 4096
LATE_WRITE = "socket.send() raised exception."


class Recorder(asyncio.Protocol):
    """Notes every call with its argument, raises or returns what the test asked for, and can be waited for."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.calls: list[tuple[str, Any]] = []
        self.transport: Any = None
        self.changed = asyncio.Event()

    def note(self, name: str, argument: Any = None) -> Any:
        self.calls.append((name, argument))
        self.changed.set()
        answer = self.answers.get(name)
        if isinstance(answer, BaseException):
            raise answer
        return answer(self) if callable(answer) else answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.note("connection_made", transport)

    def data_received(self, data: bytes) -> None:
        self.note("data_received", data)

    def eof_received(self) -> Any:
        return self.note("eof_received")

    def pause_writing(self) -> None:
        self.note("pause_writing")

    def resume_writing(self) -> None:
        self.note("resume_writing")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.note("connection_lost", exc)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    @property
    def received(self) -> bytes:
        return b"".join(argument for name, argument in self.calls if name == "data_received")

    def argument(self, name: str) -> Any:
        return dict(self.calls)[name]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def until_called(self, name: str) -> Any:
        await self.until(lambda: name in self.names)
        return self.argument(name)


class BufferedRecorder(Recorder, asyncio.BufferedProtocol):
    """A recorder that lends its own buffer."""

    def __init__(self, buffer: Any, **answers: Any) -> None:
        super().__init__(**answers)
        self.buffer = buffer
        self.data = b""

    def get_buffer(self, sizehint: int) -> Any:
        self.note("get_buffer", sizehint)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data += bytes(self.buffer[:nbytes])
        self.note("buffer_updated", nbytes)


class Reports(list[dict[str, Any]]):
    """What reached the loop's exception handler."""

    def __init__(self) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: self.append(context))


async def connect(protocol: Recorder, *, buffer: int | None = None) -> tuple[Any, socket.socket]:
    """A transport with the protocol, and the other end of its connection as a plain non-blocking socket."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    if buffer is not None:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, sock=near)
    return transport, far


async def receive(peer: socket.socket, count: int) -> bytes:
    """Exactly so many bytes, or what there is until the end of the stream."""
    loop = asyncio.get_running_loop()
    data = b""
    async with asyncio.timeout(TIMEOUT):
        while len(data) < count:
            more = await loop.sock_recv(peer, min(count - len(data), 1 << 18))
            if not more:
                break
            data += more
    return data


async def receive_all(peer: socket.socket) -> bytes:
    return await receive(peer, sys.maxsize)


async def finish(protocol: Recorder, *peers: socket.socket) -> None:
    if "connection_lost" not in protocol.names:
        protocol.transport.abort()
        await protocol.until_called("connection_lost")
    for peer in peers:
        peer.close()


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


def test_what_is_written_together_arrives_in_order(run: Run) -> None:
    async def main() -> bytes:
        protocol = Recorder()
        transport, peer = await connect(protocol)
        mutable = bytearray(b"two ")
        transport.write(b"one ")
        transport.write(mutable)
        mutable[:] = b"xxxx"
        transport.write(memoryview(b"three "))
        transport.write(b"")
        transport.writelines([b"four ", bytearray(b"five "), memoryview(b"six ")])
        transport.writelines([])
        transport.write(MEGABYTE)
        transport.writelines([b"seven", b" eight"])
        transport.close()
        data = await receive_all(peer)
        assert await protocol.until_called("connection_lost") is None
        peer.close()
        return data

    assert run(main()) == b"one two three four five six " + MEGABYTE + b"seven eight"


def test_what_is_written_by_a_callback_of_the_protocol_arrives(run: Run) -> None:
    def answer(protocol: Recorder) -> None:
        protocol.transport.write(b"head ")
        protocol.transport.write(b"body")

    async def main() -> None:
        protocol = Recorder(data_received=answer, connection_made=answer)
        _, peer = await connect(protocol)
        assert await receive(peer, 9) == b"head body"
        await asyncio.get_running_loop().sock_sendall(peer, b"?")
        assert await receive(peer, 9) == b"head body"
        await finish(protocol, peer)

    run(main())


def test_data_written_by_another_thread_or_before_the_loop_runs_is_sent_at_once(
    loop: asyncio.AbstractEventLoop,
) -> None:
    async def begin() -> tuple[Recorder, Any, socket.socket]:
        protocol = Recorder()
        return protocol, *await connect(protocol)

    protocol, transport, peer = loop.run_until_complete(begin())
    transport.write(b"the loop does not run")
    assert peer.recv(100) == b"the loop does not run"

    async def from_a_thread() -> bytes:
        def write_and_read() -> bytes:
            transport.write(b"from a thread")
            peer.settimeout(TIMEOUT)
            return peer.recv(100)

        return await asyncio.get_running_loop().run_in_executor(None, write_and_read)

    assert loop.run_until_complete(from_a_thread()) == b"from a thread"
    loop.run_until_complete(finish(protocol, peer))


def test_the_protocol_is_paused_above_high_water_and_resumed_below_low_water(run: Run) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connect(protocol, buffer=4096)
        assert transport.get_write_buffer_limits() == (16384, 65536)
        transport.write(MEGABYTE)
        assert protocol.names == ["connection_made", "pause_writing"]
        assert 900_000 < transport.get_write_buffer_size() < len(MEGABYTE)
        transport.write(b"more")
        transport.write(b"and more")
        assert protocol.names.count("pause_writing") == 1
        data = b""
        while "resume_writing" not in protocol.names:
            data += await receive(peer, 4096)
        assert transport.get_write_buffer_size() <= 16384
        transport.close()
        assert data + await receive_all(peer) == MEGABYTE + b"moreand more"
        await protocol.until_called("connection_lost")
        peer.close()

    run(main())


def test_a_buffer_without_room_pauses_with_the_first_byte_that_stays(run: Run) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connect(protocol, buffer=4096)
        transport.set_write_buffer_limits(high=0)
        assert transport.get_write_buffer_limits() == (0, 0)
        written = 0
        while "pause_writing" not in protocol.names:
            transport.write(b"x" * 1000)
            written += 1000
        assert transport.get_write_buffer_size() > 0
        assert len(await receive(peer, written)) == written
        await protocol.until_called("resume_writing")
        assert transport.get_write_buffer_size() == 0
        await finish(protocol, peer)

    run(main())


def test_write_buffer_limits(run: Run) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connect(protocol)
        for arguments, limits in [
            ({"high": 100}, (25, 100)),
            ({"low": 10}, (10, 40)),
            ({"high": 5, "low": 5}, (5, 5)),
            ({"high": 1 << 80, "low": 0}, (0, 1 << 80)),
            ({"high": float("inf"), "low": 1.5}, (1.5, float("inf"))),
            ({}, (16384, 65536)),
        ]:
            transport.set_write_buffer_limits(**arguments)
            assert transport.get_write_buffer_limits() == limits
        transport.set_write_buffer_limits(8, 2)
        for high, low in [(1, 2), (-1, None), (5, -1)]:
            with pytest.raises(ValueError, match=r"high \(.*\) must be >= low \(.*\) must be >= 0"):
                transport.set_write_buffer_limits(high=high, low=low)
        with pytest.raises(TypeError):
            transport.set_write_buffer_limits(high="many")
        assert transport.get_write_buffer_limits() == (2, 8)
        await finish(protocol, peer)

    run(main())


def test_lower_limits_pause_a_protocol_with_a_full_buffer(run: Run) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connect(protocol, buffer=4096)
        transport.set_write_buffer_limits(high=10 * len(MEGABYTE))
        transport.write(MEGABYTE)
        assert "pause_writing" not in protocol.names
        transport.set_write_buffer_limits(high=1000)
        assert "pause_writing" in protocol.names
        await finish(protocol, peer)

    run(main())


def test_half_close_by_the_peer_leaves_the_writing_half(run: Run) -> None:
    async def main() -> None:
        protocol = Recorder(eof_received=True)
        transport, peer = await connect(protocol)
        peer.shutdown(socket.SHUT_WR)
        await protocol.until_called("eof_received")
        transport.write(b"still there")
        assert await receive(peer, 11) == b"still there"
        assert not transport.is_closing() and protocol.names == ["connection_made", "eof_received"]
        transport.close()
        assert await receive_all(peer) == b""
        await protocol.until_called("connection_lost")
        peer.close()

    run(main())


@pytest.mark.parametrize("amount", [3, len(MEGABYTE)])
def test_write_eof_comes_behind_what_was_written(run: Run, amount: int) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connect(protocol)
        assert transport.can_write_eof() is True
        transport.write(MEGABYTE[:amount])
        transport.write_eof()
        transport.write_eof()
        with pytest.raises(RuntimeError, match=r"Cannot call write\(\) after write_eof\(\)"):
            transport.write(b"more")
        with pytest.raises(RuntimeError, match=r"Cannot call write(lines)?\(\) after write_eof\(\)"):
            transport.writelines([b"more"])
        assert await receive_all(peer) == MEGABYTE[:amount]
        await asyncio.get_running_loop().sock_sendall(peer, b"read")
        assert await protocol.until_called("data_received") == b"read"
        await finish(protocol, peer)

    run(main())


def test_close_sends_what_is_buffered_and_abort_drops_it(run: Run) -> None:
    async def main(end: str) -> int:
        protocol = Recorder()
        transport, peer = await connect(protocol, buffer=4096)
        transport.write(MEGABYTE)
        getattr(transport, end)()
        assert transport.is_closing() and not transport.is_reading()
        assert "connection_lost" not in protocol.names  # never from inside the call
        data = await receive_all(peer)
        assert data == MEGABYTE[: len(data)]
        assert await protocol.until_called("connection_lost") is None
        transport.close()
        await asyncio.sleep(0)
        assert protocol.names.count("connection_lost") == 1
        peer.close()
        return len(data)

    assert run(main("close")) == len(MEGABYTE)
    assert run(main("abort")) < len(MEGABYTE)


def test_abort_after_close_drops_what_is_buffered(run: Run) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connect(protocol, buffer=4096)
        transport.write(MEGABYTE)
        transport.close()
        transport.abort()
        assert len(await receive_all(peer)) < len(MEGABYTE)
        assert await protocol.until_called("connection_lost") is None
        peer.close()

    run(main())


def test_writes_after_the_end_are_dropped_and_warned_of(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connect(protocol)
        transport.close()
        for count in range(7):
            transport.write(b"late")
            assert [record.getMessage() for record in caplog.records] == [LATE_WRITE] * max(0, count - 3)
        assert await receive_all(peer) == b""
        await protocol.until_called("connection_lost")
        transport.write(b"later still")
        assert transport.get_protocol() is None
        peer.close()

    run(main())
    assert {(record.name, record.levelname) for record in caplog.records} == {("asyncio", "WARNING")}


@pytest.mark.parametrize("data", ["text", None, 1, [b"x"]])
def test_write_refuses_what_are_no_bytes(run: Run, data: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connect(protocol)
        with pytest.raises(TypeError, match=f"data argument must be a bytes.*, not '{type(data).__name__}'$"):
            transport.write(data)
        with pytest.raises(TypeError, match="bytes-like object"):
            transport.writelines([b"never sent", "text"])
        transport.close()
        assert await receive_all(peer) == b""
        await protocol.until_called("connection_lost")
        peer.close()

    run(main())


def test_reading_pauses_and_resumes(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Recorder()
        transport, peer = await connect(protocol)
        transport.resume_reading()  # nothing to resume
        transport.pause_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        await loop.sock_sendall(peer, b"held back")
        for _ in range(3):
            await asyncio.sleep(0.001)
        assert "data_received" not in protocol.names
        transport.resume_reading()
        assert transport.is_reading()
        assert await protocol.until_called("data_received") == b"held back"
        transport.close()
        transport.pause_reading()
        transport.resume_reading()
        assert not transport.is_reading()
        await protocol.until_called("connection_lost")
        peer.close()

    run(main())


def test_reading_paused_by_connection_made_does_not_begin(run: Run) -> None:
    async def main() -> None:
        protocol = Recorder(connection_made=lambda protocol: protocol.transport.pause_reading())
        transport, peer = await connect(protocol)
        await asyncio.get_running_loop().sock_sendall(peer, b"early")
        for _ in range(3):
            await asyncio.sleep(0.001)
        assert protocol.names == ["connection_made"]
        transport.resume_reading()
        assert await protocol.until_called("data_received") == b"early"
        await finish(protocol, peer)

    run(main())


def test_reading_paused_by_data_received_leaves_the_rest(run: Run) -> None:
    async def main() -> None:
        protocol = Recorder(data_received=lambda protocol: protocol.transport.pause_reading())
        transport, peer = await connect(protocol)
        await asyncio.get_running_loop().sock_sendall(peer, b"first")
        await protocol.until(lambda: protocol.received == b"first")
        await asyncio.get_running_loop().sock_sendall(peer, b"second")
        await asyncio.sleep(0.001)
        assert protocol.received == b"first"
        transport.resume_reading()
        await protocol.until(lambda: protocol.received == b"firstsecond")
        await finish(protocol, peer)

    run(main())


def test_a_smaller_max_size_makes_smaller_pieces(run: Run) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connect(protocol)
        assert transport.max_size == 256 * 1024
        transport.max_size = 4
        await asyncio.get_running_loop().sock_sendall(peer, b"abcdefghij")
        peer.shutdown(socket.SHUT_WR)
        await protocol.until_called("connection_lost")
        pieces = [argument for name, argument in protocol.calls if name == "data_received"]
        assert pieces == [b"abcd", b"efgh", b"ij"]
        peer.close()

    run(main())


def test_a_stream_of_megabytes_arrives_unharmed(run: Run) -> None:
    async def main() -> None:
        protocol = Recorder()
        _, peer = await connect(protocol)
        await asyncio.get_running_loop().sock_sendall(peer, MEGABYTE * 3)
        peer.close()
        await protocol.until_called("connection_lost")
        assert protocol.received == MEGABYTE * 3

    run(main())


def test_another_protocol_takes_over(run: Run) -> None:
    async def main() -> None:
        first, second = Recorder(), BufferedRecorder(bytearray(100))
        transport, peer = await connect(first)
        assert transport.get_protocol() is first
        transport.set_protocol(second)
        assert transport.get_protocol() is second
        await asyncio.get_running_loop().sock_sendall(peer, b"to the second")
        await second.until_called("buffer_updated")
        assert second.data == b"to the second"
        transport.set_protocol(first)
        await asyncio.get_running_loop().sock_sendall(peer, b"to the first")
        assert await first.until_called("data_received") == b"to the first"
        await finish(first, peer)
        assert "connection_lost" not in second.names

    run(main())


def test_a_buffered_protocol_lends_its_buffer(run: Run) -> None:
    async def main() -> None:
        protocol = BufferedRecorder(bytearray(4))
        _, peer = await connect(protocol)
        await asyncio.get_running_loop().sock_sendall(peer, b"abcdefghij")
        peer.close()
        await protocol.until_called("connection_lost")
        assert protocol.data == b"abcdefghij"
        assert protocol.calls[1:] == [
            *[("get_buffer", -1), ("buffer_updated", 4)] * 2,
            *[("get_buffer", -1), ("buffer_updated", 2)],
            *[("get_buffer", -1), ("eof_received", None), ("connection_lost", None)],
        ]

    run(main())


def test_the_buffer_may_be_resized_when_it_was_filled(run: Run) -> None:
    async def main() -> None:
        protocol = BufferedRecorder(
            bytearray(4), buffer_updated=lambda protocol: protocol.buffer.extend(b"larger")
        )
        _, peer = await connect(protocol)
        await asyncio.get_running_loop().sock_sendall(peer, b"abcdefghij")
        await protocol.until(lambda: protocol.data == b"abcdefghij")
        await finish(protocol, peer)

    run(main())


@pytest.mark.parametrize(
    ("buffer", "message", "exception", "text"),
    [
        (
            b"",
            "Fatal error: protocol.get_buffer() call failed.",
            RuntimeError,
            "get_buffer() returned an empty buffer",
        ),
        (
            b"read only",
            "Fatal read error on socket transport",
            TypeError,
            "recv_into() argument 1 must be read-write bytes-like object, not bytes",
        ),
        (None, "Fatal error: protocol.get_buffer() call failed.", TypeError, "object of type 'NoneType' has no len()"),
    ],
)
def test_a_useless_buffer_ends_the_connection(
    run: Run, buffer: Any, message: str, exception: type[Exception], text: str
) -> None:
    async def main() -> None:
        reports = Reports()
        protocol = BufferedRecorder(buffer)
        transport, peer = await connect(protocol)
        await asyncio.get_running_loop().sock_sendall(peer, b"?")
        error = await protocol.until_called("connection_lost")
        assert type(error) is exception and str(error) == text
        assert reports == [
            {"message": message, "exception": error, "transport": transport, "protocol": protocol}
        ]
        peer.close()

    run(main())


FATAL = "Fatal error: protocol.{}() call failed."


@pytest.mark.parametrize("method", ["data_received", "eof_received", "buffer_updated", "get_buffer"])
def test_an_exception_of_a_reading_method_ends_the_connection(run: Run, method: str) -> None:
    async def main() -> None:
        reports = Reports()
        error = LookupError("of the protocol")
        is_buffered = "buffer" in method
        protocol = BufferedRecorder(bytearray(9), **{method: error}) if is_buffered else Recorder(**{method: error})
        transport, peer = await connect(protocol)
        if method != "eof_received":
            await asyncio.get_running_loop().sock_sendall(peer, b"?")
        peer.shutdown(socket.SHUT_WR)
        assert await protocol.until_called("connection_lost") is error
        assert reports == [
            {"message": FATAL.format(method), "exception": error, "transport": transport, "protocol": protocol}
        ]
        peer.close()

    run(main())


def test_what_was_written_before_an_exception_is_sent(run: Run) -> None:
    def answer_and_fail(protocol: Recorder) -> None:
        protocol.transport.write(b"answer")
        raise LookupError

    async def main() -> None:
        reports = Reports()
        protocol = Recorder(data_received=answer_and_fail)
        _, peer = await connect(protocol)
        await asyncio.get_running_loop().sock_sendall(peer, b"?")
        assert await receive_all(peer) == b"answer"
        assert isinstance(await protocol.until_called("connection_lost"), LookupError)
        assert len(reports) == 1
        peer.close()

    run(main())


@pytest.mark.parametrize("method", ["pause_writing", "resume_writing"])
def test_an_exception_of_flow_control_is_reported_and_nothing_else(run: Run, method: str) -> None:
    async def main() -> None:
        reports = Reports()
        error = LookupError("of the protocol")
        protocol = Recorder(**{method: error})
        transport, peer = await connect(protocol, buffer=4096)
        transport.write(MEGABYTE)
        transport.close()
        assert await receive_all(peer) == MEGABYTE
        assert await protocol.until_called("connection_lost") is None
        assert reports == [
            {
                "message": f"protocol.{method}() failed",
                "exception": error,
                "transport": transport,
                "protocol": protocol,
            }
        ]
        peer.close()

    run(main())


@pytest.mark.parametrize("method", ["connection_made", "connection_lost"])
def test_an_exception_of_the_first_or_last_call_is_that_of_a_callback(run: Run, method: str) -> None:
    async def main() -> None:
        reports = Reports()
        error = LookupError("of the protocol")
        protocol = Recorder(**{method: error})
        transport, peer = await connect(protocol)
        transport.write(b"goes on")
        assert await receive(peer, 7) == b"goes on"
        near = transport.get_extra_info("socket")
        transport.close()
        await protocol.until_called("connection_lost")
        assert near.fileno() == -1
        assert [report["exception"] for report in reports] == [error]
        assert reports[0]["message"].startswith("Exception in callback")
        peer.close()

    run(main())


def test_an_exception_of_connection_lost_after_a_late_drain_is_that_of_a_callback(run: Run) -> None:
    async def main() -> None:
        reports = Reports()
        error = LookupError("of the protocol")
        protocol = Recorder(connection_lost=error)
        transport, peer = await connect(protocol, buffer=4096)
        transport.write(MEGABYTE)
        transport.close()
        assert await receive_all(peer) == MEGABYTE
        await protocol.until_called("connection_lost")
        assert [report["exception"] for report in reports] == [error]
        assert reports[0]["message"].startswith("Exception in callback")
        peer.close()

    run(main())


@pytest.mark.parametrize("method", ["data_received", "eof_received", "resume_writing", "connection_lost"])
def test_keyboard_interrupt_leaves_the_loop(loop: asyncio.AbstractEventLoop, method: str) -> None:
    async def begin() -> tuple[Recorder, Any, socket.socket]:
        protocol = Recorder(**{method: KeyboardInterrupt()})
        return protocol, *await connect(protocol, buffer=4096)

    protocol, transport, peer = loop.run_until_complete(begin())
    transport.write(MEGABYTE)
    if method == "data_received":
        peer.send(b"?")
    else:
        peer.shutdown(socket.SHUT_WR)
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(receive_all(peer))
    assert protocol.names[-1] == method
    protocol.answers.clear()
    loop.run_until_complete(finish(protocol, peer))


def test_a_reset_is_told_as_it_is(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        reports = Reports()
        protocol = Recorder()
        listener = socket.create_server(("127.0.0.1", 0))
        near = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
        near.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: protocol, sock=near)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        error = await protocol.until_called("connection_lost")
        assert type(error) is ConnectionResetError and error.args == (104, "Connection reset by peer")
        assert protocol.names == ["connection_made", "connection_lost"]
        assert reports == []
        listener.close()

    caplog.set_level(logging.DEBUG, "asyncio")
    run(main())
    assert "Fatal" not in caplog.text
    run(main(), debug=True)
    assert "Fatal read error on socket transport" in caplog.text


def test_a_failed_write_ends_the_connection(run: Run) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connect(protocol)
        transport.pause_reading()
        peer.close()
        transport.write(b"to nobody")
        error = await protocol.until_called("connection_lost")
        assert type(error) is BrokenPipeError
        assert transport.is_closing()

    run(main())


def test_a_socket_closed_by_others_never_sends_to_its_successor(run: Run) -> None:
    async def main() -> None:
        protocol = Recorder()
        near, far = socket.socketpair()
        near.setblocking(False)
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, sock=near)
        number = near.fileno()
        transport.pause_reading()
        near.close()
        pairs = [socket.socketpair() for _ in range(3)]
        ends = {end.fileno(): (end, other) for pair in pairs for end, other in (pair, pair[::-1])}
        assert number in ends, "the number was not taken again: the test tests nothing"
        transport.write(b"secret")
        error = await protocol.until_called("connection_lost")
        assert type(error) is OSError and error.args == (9, "Bad file descriptor")
        ends[number][1].setblocking(False)
        with pytest.raises(BlockingIOError):
            ends[number][1].recv(100)
        for end, _ in ends.values():
            end.close()
        far.close()

    run(main())


def test_extra_information(run: Run) -> None:
    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        protocol = Recorder()
        transport, _ = await asyncio.get_running_loop().create_connection(
            lambda: protocol, *listener.getsockname()
        )
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


def test_attributes_and_weak_references(run: Run) -> None:
    import weakref

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


def test_debug_mode_logs_what_reading_does(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connect(protocol)
        transport.pause_reading()
        transport.resume_reading()
        peer.close()
        await protocol.until_called("connection_lost")

    caplog.set_level(logging.DEBUG, "asyncio")
    run(main(), debug=True)
    lines = [record.getMessage() for record in caplog.records]
    ends = [" pauses reading", " resumes reading", " received EOF"]
    assert [end for line in lines for end in ends if line.endswith(end)] == ends


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
    assert seen == {
        "connection_made": "at the beginning",
        "data_received": "at the beginning",
        "pause_writing": "before the write",
        "resume_writing": "before the write",
        "connection_lost": "before the end",
    }


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


def test_a_file_is_sent_behind_what_was_written(run: Run) -> None:
    async def main(fallback_only: bool) -> None:
        loop = asyncio.get_running_loop()
        protocol = Recorder()
        transport, peer = await connect(protocol)
        with tempfile.TemporaryFile() as file:
            file.write(MEGABYTE)
            file.seek(0)
            transport.write(b"head " * 1000)
            reading = asyncio.ensure_future(receive(peer, 5000 + len(MEGABYTE) + 5))
            await asyncio.sleep(0)
            if fallback_only:
                transport._sendfile_compatible = asyncio.constants._SendfileMode.FALLBACK
            assert await loop.sendfile(transport, file, 0) == len(MEGABYTE)
            transport.write(b" tail")
            assert await reading == b"head " * 1000 + MEGABYTE + b" tail"
        assert transport.is_reading()
        await finish(protocol, peer)

    run(main(False))
    run(main(True))


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


def test_what_is_written_while_the_protocol_is_told_to_go_on_arrives(run: Run) -> None:
    async def main() -> None:
        protocol = Recorder(resume_writing=lambda protocol: protocol.transport.write(b"and the rest"))
        transport, peer = await connect(protocol, buffer=4096)
        transport.set_write_buffer_limits(high=100, low=0)
        transport.write(MEGABYTE)
        assert await receive(peer, len(MEGABYTE) + 12) == MEGABYTE + b"and the rest"
        await finish(protocol, peer)

    run(main())


def test_closing_while_the_protocol_is_told_to_go_on_ends_once(run: Run) -> None:
    async def main(end: str) -> None:
        Reports()  # asyncio closes twice before 3.14.? and reports that
        protocol = Recorder(resume_writing=lambda protocol: getattr(protocol.transport, end)())
        transport, peer = await connect(protocol, buffer=4096)
        transport.set_write_buffer_limits(high=100, low=0)
        transport.write(MEGABYTE)
        assert await receive_all(peer) == MEGABYTE
        assert await protocol.until_called("connection_lost") is None
        await asyncio.sleep(0)
        assert protocol.names.count("connection_lost") == 1
        peer.close()

    run(main("close"))
    run(main("abort"))


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
