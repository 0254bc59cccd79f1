"""The transport of a stream socket: reading, pausing, and protocols that lend their buffer."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest

from recorder import MEGABYTE, BufferedRecorder, Recorder, connect, finish

Run = Callable[..., Any]


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
        protocol = BufferedRecorder(bytearray(4), buffer_updated=lambda protocol: protocol.buffer.extend(b"larger"))
        _, peer = await connect(protocol)
        await asyncio.get_running_loop().sock_sendall(peer, b"abcdefghij")
        await protocol.until(lambda: protocol.data == b"abcdefghij")
        await finish(protocol, peer)

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
