"""The writing end of a pipe: what asyncio's transport does, on both loops.

Invariants
1. The other end of a pipe is a plain descriptor that the test reads and writes itself.
2. Whatever a transport is given is closed by it, once; a test closes only its own end.
"""

from __future__ import annotations

import asyncio
import io
import os
import socket
from typing import Any

import pytest

from pipe_ends import BACKLOG, debug_log, drain, ends, settle, write_pipe
from recorder import MEGABYTE, Recorder, Reports


def test_a_writer_writes_and_closes(run: Any) -> None:
    async def main() -> None:
        reading, writing = ends()
        protocol = Recorder()
        transport = await write_pipe(protocol, writing)
        assert transport.get_extra_info("pipe") is writing and transport.get_protocol() is protocol
        assert isinstance(transport, asyncio.WriteTransport) and transport.can_write_eof()
        assert transport.get_write_buffer_limits() == (16384, 65536)
        for data in (b"bytes ", bytearray(b"bytearray "), memoryview(b"memoryview"), b""):
            transport.write(data)
        transport.writelines([b" a", b" list"])
        assert transport.get_write_buffer_size() == 0
        transport.close()
        transport.close()
        assert transport.is_closing()
        assert await protocol.until_called("connection_lost") is None
        assert await drain(reading) == b"bytes bytearray memoryview a list"
        assert writing.closed and protocol.names == ["connection_made", "connection_lost"]
        reading.close()

    run(main())


def test_a_writer_refuses_what_is_no_bytes(run: Any) -> None:
    async def main() -> None:
        reading, writing = ends()
        protocol = Recorder()
        transport = await write_pipe(protocol, writing)
        for wrong in ("text", 5, [b"x"], None):
            with pytest.raises(AssertionError) as raised:
                transport.write(wrong)
            assert str(raised.value) == repr(wrong)
        assert not transport.is_closing()
        transport.abort()
        await protocol.until_called("connection_lost")
        reading.close()

    run(main())


def test_a_buffer_may_change_after_it_was_written(run: Any) -> None:
    async def main() -> bytes:
        reading, writing = ends()
        protocol = Recorder()
        transport = await write_pipe(protocol, writing)
        data = bytearray(b"before")
        transport.write(data)
        data[:] = b"after!"
        transport.close()
        await protocol.until_called("connection_lost")
        received = await drain(reading)
        reading.close()
        return received

    assert run(main()) == b"before"


def test_a_slow_reader_gets_every_byte(run: Any) -> None:
    async def main() -> None:
        reading, writing = ends()
        protocol = Recorder()
        transport = await write_pipe(protocol, writing)
        os.set_blocking(reading.fileno(), False)
        sent = MEGABYTE[:300_000]
        for start in range(0, len(sent), 1000):
            transport.write(sent[start : start + 1000])
        transport.write_eof()
        received = b""
        while True:
            more = reading.read(7000)
            if more == b"":
                break
            received += more or b""
            await asyncio.sleep(0)
        assert received == sent
        assert protocol.names == ["connection_made", "pause_writing", "resume_writing", "connection_lost"]
        reading.close()

    run(main())


def test_writing_pauses_and_resumes_the_protocol(run: Any) -> None:
    async def main() -> None:
        reading, writing = ends()
        protocol = Recorder()
        transport = await write_pipe(protocol, writing)
        transport.write(bytes(BACKLOG))
        assert protocol.names == ["connection_made", "pause_writing"]
        size = transport.get_write_buffer_size()
        assert 0 < size < BACKLOG
        transport.write(b"more")
        assert transport.get_write_buffer_size() == size + 4
        assert bytes(transport._buffer[-4:]) == b"more" and len(transport._buffer) == size + 4
        assert await drain(reading, BACKLOG + 4) == bytes(BACKLOG) + b"more"
        await protocol.until_called("resume_writing")
        assert transport.get_write_buffer_size() == 0
        transport.abort()
        await protocol.until_called("connection_lost")
        reading.close()

    run(main())


def test_limits_are_checked_and_honoured(run: Any) -> None:
    async def main() -> None:
        reading, writing = ends()
        protocol = Recorder()
        transport = await write_pipe(protocol, writing)
        with pytest.raises(ValueError, match=r"high \(1\) must be >= low \(2\) must be >= 0"):
            transport.set_write_buffer_limits(1, 2)
        transport.set_write_buffer_limits(high=2 * BACKLOG)
        transport.write(bytes(BACKLOG))
        assert protocol.names == ["connection_made"] and transport.get_write_buffer_limits() == (BACKLOG // 2, 2 * BACKLOG)
        transport.set_write_buffer_limits(10)
        assert protocol.names == ["connection_made", "pause_writing"]
        transport.abort()
        await protocol.until_called("connection_lost")
        reading.close()

    run(main())


def test_what_pause_and_resume_raise_is_reported(run: Any) -> None:
    async def main() -> list[str]:
        reports = Reports()
        reading, writing = ends()
        protocol = Recorder(pause_writing=ValueError("pause"), resume_writing=ValueError("resume"))
        transport = await write_pipe(protocol, writing)
        transport.write(bytes(BACKLOG))
        await drain(reading, BACKLOG)
        await protocol.until_called("resume_writing")
        await settle()
        transport.close()
        await protocol.until_called("connection_lost")
        reading.close()
        return [f"{report['message']}: {report['exception']}" for report in reports]

    assert run(main()) == ["protocol.pause_writing() failed: pause", "protocol.resume_writing() failed: resume"]


def test_close_still_writes_what_is_buffered(run: Any) -> None:
    async def main() -> None:
        reading, writing = ends()
        protocol = Recorder()
        transport = await write_pipe(protocol, writing)
        transport.write(MEGABYTE)
        transport.close()
        transport.write(b"too late")
        await settle()
        assert "connection_lost" not in protocol.names and not writing.closed
        assert await drain(reading) == MEGABYTE
        assert await protocol.until_called("connection_lost") is None
        reading.close()

    run(main())


def test_abort_drops_what_is_buffered(run: Any) -> None:
    async def main() -> None:
        reading, writing = ends()
        protocol = Recorder()
        transport = await write_pipe(protocol, writing)
        transport.write(b"taken by the kernel")
        transport.abort()
        assert transport.is_closing() and transport.get_write_buffer_size() == 0
        assert await protocol.until_called("connection_lost") is None
        assert await drain(reading) == b"taken by the kernel"
        reading.close()
        reading, writing = ends()
        protocol = Recorder()
        transport = await write_pipe(protocol, writing)
        transport.write(MEGABYTE)
        transport.abort()
        assert await protocol.until_called("connection_lost") is None
        assert 0 < len(await drain(reading)) < len(MEGABYTE)
        reading.close()

    run(main())


def test_a_reader_that_hangs_up_ends_the_writer(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        reading, writing = ends()
        protocol = Recorder()
        await write_pipe(protocol, writing)
        reading.close()
        assert await protocol.until_called("connection_lost") is None
        assert writing.closed

    with debug_log(caplog) as lines:
        run(main(), debug=True)
    assert [line for line in lines if line.endswith("was closed by peer")]
    assert [line for line in lines if line.startswith("Write pipe ") and " connected: (<" in line]


def test_a_reader_that_hangs_up_before_all_is_read_breaks_the_pipe(run: Any) -> None:
    async def main() -> None:
        reports = Reports()
        reading, writing = ends()
        protocol = Recorder()
        transport = await write_pipe(protocol, writing)
        transport.write(bytes(BACKLOG))
        reading.close()
        assert isinstance(await protocol.until_called("connection_lost"), BrokenPipeError)
        assert reports == [] and transport.get_write_buffer_size() == 0

    run(main())


def test_a_write_without_a_reader_breaks_the_pipe(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        reports = Reports()
        reading, writing = ends()
        protocol = Recorder()
        transport = await write_pipe(protocol, writing)
        reading.close()
        transport.write(b"lost")
        lost = await protocol.until_called("connection_lost")
        assert isinstance(lost, BrokenPipeError)
        assert reports == []
        for _ in range(7):
            transport.write(b"dropped")

    with debug_log(caplog) as lines:
        run(main(), debug=True)
    assert [line for line in lines if line.endswith("Fatal write error on pipe transport")]
    warning = "pipe closed by peer or os.write(pipe, data) raised exception."
    assert lines.count(warning) == 3


def test_a_socket_as_a_writer_ends_when_its_peer_sends(run: Any) -> None:
    async def main() -> None:
        near, far = socket.socketpair()
        protocol = Recorder()
        transport = await write_pipe(protocol, near)
        transport.write(b"to the peer")
        await settle()
        assert far.recv(100) == b"to the peer"
        far.send(b"asyncio takes this for a hang-up")
        assert await protocol.until_called("connection_lost") is None
        assert near.fileno() == -1
        far.close()

    run(main())


def test_messages_stay_apart(run: Any) -> None:
    async def main() -> list[bytes]:
        near, far = socket.socketpair(type=socket.SOCK_SEQPACKET)
        protocol = Recorder()
        transport = await write_pipe(protocol, near)
        for data in (b"one", b"two", b"three"):
            transport.write(data)
        await settle()
        received = [far.recv(100) for _ in range(3)]
        transport.close()
        await protocol.until_called("connection_lost")
        far.close()
        return received

    assert run(main()) == [b"one", b"two", b"three"]


def test_packets_of_a_pipe_stay_apart(run: Any) -> None:
    async def main() -> list[bytes]:
        reading, writing = os.pipe2(os.O_DIRECT)
        protocol = Recorder()
        transport = await write_pipe(protocol, io.FileIO(writing, "wb"))
        for data in (b"one", b"two", b"three"):
            transport.write(data)
        await settle()
        received = [os.read(reading, 100) for _ in range(3)]
        transport.close()
        await protocol.until_called("connection_lost")
        os.close(reading)
        return received

    assert run(main()) == [b"one", b"two", b"three"]


def test_lines_of_two_writers_are_not_torn_apart(run: Any) -> None:
    async def main() -> None:
        reading, writing = ends()
        other = io.FileIO(os.dup(writing.fileno()), "wb")
        protocols = [Recorder(), Recorder()]
        transports = [await write_pipe(protocols[0], writing), await write_pipe(protocols[1], other)]
        lines = {letter: [letter * 100 + b"%03d\n" % number for number in range(150)] for letter in (b"a", b"b")}
        for pair in zip(*lines.values(), strict=True):
            for transport, line in zip(transports, pair, strict=True):
                transport.write(line)
        await settle()
        for transport in transports:
            transport.close()
        received = (await drain(reading)).splitlines(keepends=True)
        for letter, sent in lines.items():
            assert [line for line in received if line.startswith(letter)] == sent
        for protocol in protocols:
            await protocol.until_called("connection_lost")
        reading.close()

    run(main())


def test_a_callback_of_another_thread_may_write(run: Any) -> None:
    async def main() -> None:
        reading, writing = ends()
        protocol = Recorder()
        transport = await write_pipe(protocol, writing)
        await asyncio.to_thread(transport.write, b"from a thread")
        assert await drain(reading, 13) == b"from a thread"
        transport.close()
        await protocol.until_called("connection_lost")
        reading.close()

    run(main())
