"""The transport of a stream socket: exceptions of the protocol and of the kernel, and who hears of them."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest

from recorder import MEGABYTE, BufferedRecorder, Recorder, Reports, connect, finish, receive, receive_all

Run = Callable[..., Any]


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
def test_a_useless_buffer_ends_the_connection(run: Run, buffer: Any, message: str, exception: type[Exception], text: str) -> None:
    async def main() -> None:
        reports = Reports()
        protocol = BufferedRecorder(buffer)
        transport, peer = await connect(protocol)
        await asyncio.get_running_loop().sock_sendall(peer, b"?")
        error = await protocol.until_called("connection_lost")
        assert type(error) is exception and str(error) == text
        assert reports == [{"message": message, "exception": error, "transport": transport, "protocol": protocol}]
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
        assert reports == [{"message": FATAL.format(method), "exception": error, "transport": transport, "protocol": protocol}]
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
