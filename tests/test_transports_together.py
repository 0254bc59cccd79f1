"""Several connections that become readable in the same turn of the loop: what the protocol that is told first does to others."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from typing import Any

import pytest

from recorder import BufferedRecorder, Recorder, Reports, connect, finish

Run = Callable[..., Any]
COUNT = 40  # more than are received for in a row


class Together:
    """Connections whose protocols share what the one that is told first does with the others' transports."""

    def __init__(self, act: Callable[[Any], None] | None = None, event: str = "data_received") -> None:
        self.act = act
        self.event = event
        self.first: Recorder | None = None
        self.protocols: list[Recorder] = []
        self.peers: list[socket.socket] = []

    async def open(self, count: int = COUNT) -> None:
        for _ in range(count):
            protocol = Recorder(**{self.event: self.told})
            _, peer = await connect(protocol)
            self.protocols.append(protocol)
            self.peers.append(peer)

    def told(self, protocol: Recorder) -> None:
        if self.first is not None:
            return
        self.first = protocol
        for other in self.others:
            if self.act is not None:
                self.act(other.transport)

    @property
    def others(self) -> list[Recorder]:
        return [protocol for protocol in self.protocols if protocol is not self.first]

    def send(self, data: bytes) -> None:
        """Sends to all of them before the loop looks again."""
        for number, peer in enumerate(self.peers):
            assert peer.send(data + str(number).encode()) > len(data)

    async def until_all(self, protocols: list[Recorder], name: str) -> None:
        for protocol in protocols:
            await protocol.until_called(name)

    async def finish(self) -> None:
        for protocol, peer in zip(self.protocols, self.peers, strict=True):
            await finish(protocol, peer)


async def turns(count: int = 4) -> None:
    for _ in range(count):
        await asyncio.sleep(0.001)


def test_each_receives_its_own_in_order(run: Run) -> None:
    async def main() -> None:
        choice = random.Random(5)
        together = Together()
        await together.open()
        sent = [b""] * COUNT
        for _ in range(60):
            for number in choice.sample(range(COUNT), choice.randint(1, COUNT)):
                data = bytes([choice.randint(0, 255)]) * choice.choice([1, 100, 5_000, 40_000])
                sent[number] += data[: together.peers[number].send(data)]
            await asyncio.sleep(0)
        for protocol, data in zip(together.protocols, sent, strict=True):
            await protocol.until(lambda protocol=protocol, data=data: len(protocol.received) >= len(data))
        assert [protocol.received for protocol in together.protocols] == sent
        await together.finish()

    run(main())


def test_the_first_pauses_the_others(run: Run) -> None:
    async def main() -> None:
        together = Together(lambda transport: transport.pause_reading())
        await together.open()
        together.send(b"early")
        while together.first is None:
            await turns(1)
        await turns()
        assert {name for other in together.others for name in other.names} == {"connection_made"}
        together.send(b"late")
        await turns()
        for other in together.others:
            assert "data_received" not in other.names
            other.transport.resume_reading()
        for number, protocol in enumerate(together.protocols):
            expected = f"early{number}late{number}".encode()
            await protocol.until(lambda protocol=protocol, expected=expected: len(protocol.received) >= len(expected))
            assert protocol.received == expected
        await together.finish()

    run(main())


def test_the_first_pauses_and_resumes_the_others(run: Run) -> None:
    def act(transport: Any) -> None:
        transport.pause_reading()
        transport.resume_reading()

    async def main() -> None:
        together = Together(act)
        await together.open()
        together.send(b"data")
        await together.until_all(together.protocols, "data_received")
        await turns()
        assert [protocol.received for protocol in together.protocols] == [b"data%d" % number for number in range(COUNT)]
        await together.finish()

    run(main())


@pytest.mark.parametrize("end", ["close", "abort"])
def test_the_first_ends_the_others(run: Run, end: str) -> None:
    async def main() -> None:
        together = Together(lambda transport: getattr(transport, end)())
        await together.open()
        together.send(b"never heard")
        while together.first is None:
            await turns(1)
        await together.until_all(together.others, "connection_lost")
        for other in together.others:
            assert other.names == ["connection_made", "connection_lost"]
            assert other.argument("connection_lost") is None
        assert together.first.names == ["connection_made", "data_received"]
        await together.finish()

    run(main())


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("kind", ["plain", "buffered", "stream"])
def test_the_first_gives_the_others_another_protocol(run: Run, kind: str, paused: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        made: dict[Any, Any] = {}
        readers: dict[Any, asyncio.StreamReader] = {}

        def act(transport: Any) -> None:
            if kind == "plain":
                protocol: Any = Recorder()
            elif kind == "buffered":
                protocol = BufferedRecorder(bytearray(3))
            else:
                readers[transport] = asyncio.StreamReader(loop=loop)
                protocol = asyncio.StreamReaderProtocol(readers[transport], loop=loop)
                protocol.connection_made(transport)
            made[transport] = protocol
            if paused:
                transport.pause_reading()
            transport.set_protocol(protocol)
            if paused:
                loop.call_later(0.001, transport.resume_reading)

        together = Together(act)
        await together.open()
        together.send(b"for another")
        while together.first is None:
            await turns(1)
        for number, protocol in enumerate(together.protocols):
            expected = b"for another%d" % number
            if protocol is together.first:
                assert protocol.received == expected
                continue
            assert protocol.names == ["connection_made"]
            other = made[protocol.transport]
            if kind == "plain":
                await other.until_called("data_received")
                assert other.received == expected
            elif kind == "buffered":
                await other.until(lambda other=other, expected=expected: len(other.data) >= len(expected))
                assert other.data == expected
            else:
                assert await readers[protocol.transport].readexactly(len(expected)) == expected
            protocol.transport.set_protocol(protocol)
        await together.finish()

    run(main())


@pytest.mark.parametrize("paused", [False, True])
def test_the_ends_of_streams(run: Run, paused: bool) -> None:
    async def main() -> None:
        together = Together((lambda transport: transport.pause_reading()) if paused else None, "eof_received")
        await together.open()
        for peer in together.peers:
            peer.shutdown(socket.SHUT_WR)
        while together.first is None:
            await turns(1)
        if paused:
            await turns()
            assert {name for other in together.others for name in other.names} == {"connection_made"}
            for other in together.others:
                other.transport.resume_reading()
        await together.until_all(together.protocols, "connection_lost")
        for protocol in together.protocols:
            assert protocol.calls[1:] == [("eof_received", None), ("connection_lost", None)]
        await together.finish()

    run(main())


def test_connections_that_are_reset(run: Run) -> None:
    async def main() -> None:
        together = Together()
        await together.open()
        reports = Reports()
        for protocol, peer in zip(together.protocols, together.peers, strict=True):
            protocol.transport.write(b"unread")
            assert protocol.transport.get_write_buffer_size() == 0
            peer.close()  # with unread bytes: a reset
        await together.until_all(together.protocols, "connection_lost")
        for protocol in together.protocols:
            assert protocol.names == ["connection_made", "connection_lost"]
            assert type(protocol.argument("connection_lost")) is ConnectionResetError
        assert reports == []
        await together.finish()

    run(main())


def test_the_first_fails(run: Run) -> None:
    async def main() -> None:
        reports = Reports()

        def told(protocol: Recorder) -> None:
            if not failed:
                failed.append(protocol)
                raise ValueError("of the first")

        failed: list[Recorder] = []
        together = Together()
        await together.open()
        for protocol in together.protocols:
            protocol.answers["data_received"] = told
        together.send(b"data")
        await together.until_all(together.protocols, "data_received")
        await failed[0].until_called("connection_lost")
        assert [str(report["exception"]) for report in reports] == ["of the first"]
        assert [protocol.received for protocol in together.protocols] == [b"data%d" % number for number in range(COUNT)]
        await together.finish()

    run(main())


def test_the_loop_is_left_and_goes_on(loop: asyncio.AbstractEventLoop) -> None:
    def told(protocol: Recorder) -> None:
        if not left:
            left.append(protocol)
            raise KeyboardInterrupt

    async def begin() -> Together:
        together = Together()
        await together.open()
        for protocol in together.protocols:
            protocol.answers["data_received"] = told
        return together

    async def end() -> list[bytes]:
        await together.until_all(together.protocols, "data_received")
        received = [protocol.received for protocol in together.protocols]
        await together.finish()
        return received

    left: list[Recorder] = []
    together = loop.run_until_complete(begin())
    together.send(b"data")
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert loop.run_until_complete(end()) == [b"data%d" % number for number in range(COUNT)]
