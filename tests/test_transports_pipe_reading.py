"""The reading end of a pipe: what asyncio's transport does, on both loops.

Invariants
1. The other end of a pipe is a plain descriptor that the test reads and writes itself.
2. Whatever a transport is given is closed by it, once; a test closes only its own end.
"""

from __future__ import annotations

import asyncio
import errno
import io
import os
import pty
import socket
import tty
from typing import Any

import pytest

from pipe_ends import debug_log, ends, is_open, read_pipe, settle
from recorder import Recorder, Reports


def test_a_reader_is_told_of_everything_in_order(run: Any) -> None:
    async def main() -> list[str]:
        reading, writing = ends()
        protocol = Recorder()
        transport = await read_pipe(protocol, reading)
        assert protocol.names == ["connection_made"]
        assert transport.get_extra_info("pipe") is reading and transport.get_protocol() is protocol
        assert isinstance(transport, asyncio.ReadTransport) and not isinstance(transport, asyncio.WriteTransport)
        assert transport.is_reading() and not transport.is_closing() and not hasattr(transport, "abort")
        writing.write(b"one")
        await protocol.until(lambda: protocol.received == b"one")
        writing.write(b"two")
        writing.close()
        assert await protocol.until_called("connection_lost") is None
        assert protocol.received == b"onetwo" and reading.closed and transport.is_closing()
        return protocol.names

    assert run(main()) == ["connection_made", "data_received", "data_received", "eof_received", "connection_lost"]


def test_a_reader_gets_at_most_max_size_at_a_time(run: Any) -> None:
    async def main() -> list[int]:
        reading, writing = ends()
        protocol = Recorder()
        transport = await read_pipe(protocol, reading)
        assert transport.max_size == 256 * 1024
        transport.max_size = 4
        writing.write(b"0123456789")
        writing.close()
        await protocol.until_called("connection_lost")
        return [len(argument) for name, argument in protocol.calls if name == "data_received"]

    assert run(main()) == [4, 4, 2]


def test_a_paused_reader_leaves_the_bytes_in_the_pipe(run: Any) -> None:
    async def main() -> None:
        reading, writing = ends()
        protocol = Recorder()
        transport = await read_pipe(protocol, reading)
        transport.pause_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        writing.write(b"later")
        await settle()
        assert protocol.received == b""
        transport.resume_reading()
        transport.resume_reading()
        await protocol.until(lambda: protocol.received == b"later")
        transport.pause_reading()
        transport.close()
        transport.resume_reading()
        assert not transport.is_reading()
        await protocol.until_called("connection_lost")
        writing.close()

    run(main())


def test_a_reader_that_pauses_in_connection_made_is_told_of_nothing(run: Any) -> None:
    async def main() -> None:
        reading, writing = ends()
        writing.write(b"waits")
        protocol = Recorder(connection_made=lambda self: self.transport.pause_reading())
        transport = await read_pipe(protocol, reading)
        await settle()
        assert protocol.names == ["connection_made"]
        transport.resume_reading()
        await protocol.until(lambda: protocol.received == b"waits")
        writing.close()
        await protocol.until_called("connection_lost")

    run(main())


def test_a_reader_closes_its_pipe_after_connection_lost(run: Any) -> None:
    async def main() -> None:
        reading, writing = ends()
        protocol = Recorder(connection_lost=lambda self: reading.closed)
        transport = await read_pipe(protocol, reading)
        number = reading.fileno()
        transport.close()
        transport.close()
        assert transport.is_closing() and is_open(number)
        assert await protocol.until_called("connection_lost") is None
        await settle()
        assert protocol.names.count("connection_lost") == 1 and reading.closed and not is_open(number)
        with pytest.raises(BrokenPipeError):
            writing.write(b"x")
        writing.close()

    run(main())


def test_what_data_received_raises_leaves_the_reader_open(run: Any) -> None:
    async def main() -> None:
        reports = Reports()
        reading, writing = ends()
        protocol = Recorder(data_received=ValueError("bad"))
        transport = await read_pipe(protocol, reading)
        writing.write(b"x")
        await protocol.until_called("data_received")
        await settle()
        assert [str(report["exception"]) for report in reports] == ["bad"]
        assert "PipeTransport._read_ready()" in reports[0]["message"]
        assert not transport.is_closing()
        writing.close()
        await protocol.until_called("connection_lost")

    run(main())


def test_a_read_error_is_reported_and_ends_the_reader(run: Any) -> None:
    async def main() -> tuple[str, Any]:
        reports = Reports()
        near, far = socket.socketpair()
        protocol = Recorder()
        transport = await read_pipe(protocol, near)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        near.send(b"unread by the peer")
        far.close()
        lost = await protocol.until_called("connection_lost")
        assert isinstance(lost, ConnectionResetError)
        assert [report["exception"] for report in reports] == [lost]
        assert reports[0]["transport"] is transport and reports[0]["protocol"] is protocol
        return reports[0]["message"], sorted(reports[0])

    assert run(main()) == (
        "Fatal read error on pipe transport",
        ["exception", "message", "protocol", "transport"],
    )


def test_a_terminal_that_is_gone_is_an_everyday_end(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        reports = Reports()
        master, slave = pty.openpty()
        tty.setraw(slave)
        protocol = Recorder()
        await read_pipe(protocol, io.FileIO(master, "rb"))
        os.write(slave, b"typed")
        await protocol.until(lambda: protocol.received == b"typed")
        os.close(slave)
        lost = await protocol.until_called("connection_lost")
        assert isinstance(lost, OSError) and lost.errno == errno.EIO
        assert reports == []

    with debug_log(caplog) as lines:
        run(main(), debug=True)
    assert [line for line in lines if "Fatal read error on pipe transport" in line]


def test_a_protocol_can_be_replaced(run: Any) -> None:
    async def main() -> None:
        reading, writing = ends()
        first, second = Recorder(), Recorder()
        transport = await read_pipe(first, reading)
        transport.set_protocol(second)
        assert transport.get_protocol() is second
        writing.write(b"to the second")
        writing.close()
        await second.until_called("connection_lost")
        assert first.names == ["connection_made"] and second.received == b"to the second"

    run(main())
