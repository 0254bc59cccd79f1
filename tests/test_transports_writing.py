"""The transport of a stream socket: writing, flow control, and the ends that wait for what is buffered."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import string
import tempfile
from collections.abc import Callable
from typing import Any

import pytest

from recorder import MEGABYTE, TIMEOUT, Recorder, Reports, connect, finish, receive, receive_all

Run = Callable[..., Any]

LATE_WRITE = "socket.send() raised exception."


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


def test_an_answer_that_does_not_fit_pauses_the_protocol_in_the_context_of_the_reader(run: Run) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")
    paused_in = []

    def answer(protocol: Recorder) -> None:
        protocol.transport.write(b"a" * 2000)

    async def main() -> None:
        variable.set("of the connection")
        protocol = Recorder(data_received=answer, pause_writing=lambda _protocol: paused_in.append(variable.get()))
        transport, peer = await connect(protocol, buffer=4096)
        transport.set_write_buffer_limits(high=0)
        asked = 0
        while not paused_in and asked < 1000:
            await asyncio.get_running_loop().sock_sendall(peer, b"?")
            asked += 1
            await protocol.until(lambda: len(protocol.received) == asked)
            await asyncio.sleep(0)
        assert paused_in == ["of the connection"]
        expected = 2000 * asked
        assert await receive(peer, expected) == b"a" * expected
        await protocol.until_called("resume_writing")
        await finish(protocol, peer)

    run(main())


@pytest.mark.parametrize("size", [1, 16 * 1024, 16 * 1024 + 1, 200 * 1024])
def test_the_answers_of_one_turn_all_arrive_whatever_their_size(run: Run, size: int) -> None:
    """Short answers leave together at the end of the turn, long ones at once, and many short ones in between."""

    def answer(protocol: Recorder) -> None:
        protocol.transport.write(protocol.received * size)

    async def main() -> list[bytes]:
        protocols = [Recorder(data_received=answer) for _ in range(20)]
        peers = [(await connect(protocol))[1] for protocol in protocols]
        for peer, letter in zip(peers, string.ascii_lowercase, strict=False):
            peer.send(letter.encode())
        answers = await asyncio.gather(*(receive(peer, size) for peer in peers))
        for protocol, peer in zip(protocols, peers, strict=True):
            await finish(protocol, peer)
        return list(answers)

    assert run(main()) == [letter.encode() * size for letter in string.ascii_lowercase[:20]]


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
            transport.writelines(["text"])
        transport.close()
        assert await receive_all(peer) == b""
        await protocol.until_called("connection_lost")
        peer.close()

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
