"""The transport of datagrams: what asyncio's does, on both loops.

What it leaves to others: opening endpoints (test_datagram_endpoints.py).

Invariants
1. Datagrams on the loopback interface arrive, in order, as long as the receiver's buffer has room.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import gc
import logging
import os
import socket
from asyncio import selector_events
from pathlib import Path
from typing import Any

import pytest

from datagram_ends import Datagrams, endpoint, finish, hear, plain, settle
from recorder import Reports


def test_an_endpoint_answers_its_peers(run: Any) -> None:
    async def main() -> None:
        def answer(self: Datagrams) -> None:
            data, address = self.calls[-1][1]
            self.transport.sendto(b"echo " + data, address)

        protocol = Datagrams(datagram_received=answer)
        transport = await endpoint(protocol)
        peers = [plain() for _ in range(5)]
        for _ in range(3):
            for index, peer in enumerate(peers):
                peer.sendto(b"%d" % index, transport.get_extra_info("sockname"))
        for _ in range(3):
            for index, peer in enumerate(peers):
                assert await hear(peer) == b"echo %d" % index
        senders = [argument[1] for name, argument in protocol.calls if name == "datagram_received"]
        assert senders == [peer.getsockname() for peer in peers] * 3
        await finish(protocol, *peers)

    run(main())


def test_each_turn_brings_one_datagram(run: Any) -> None:
    """What a datagram wakes up has run before the next one comes."""

    async def main() -> list[str]:
        order: list[str] = []
        loop = asyncio.get_running_loop()

        def received(self: Datagrams) -> None:
            number = self.received[-1].decode()
            order.append("received " + number)
            loop.call_soon(order.append, "woken " + number)

        protocol = Datagrams(datagram_received=received)
        transport = await endpoint(protocol)
        peer = plain()
        for number in range(20):
            peer.sendto(b"%d" % number, transport.get_extra_info("sockname"))
        await protocol.until(lambda: len(protocol.received) == 20)
        await settle()
        await finish(protocol, peer)
        return order

    assert run(main()) == [f"{what} {number}" for number in range(20) for what in ("received", "woken")]


def test_pausing_stops_at_once_and_loses_nothing(run: Any) -> None:
    async def main() -> None:
        protocol = Datagrams(datagram_received=lambda self: self.transport.pause_reading())
        transport = await endpoint(protocol)
        peer = plain()
        for number in range(20):
            peer.sendto(b"%d" % number, transport.get_extra_info("sockname"))
        for number in range(20):
            await protocol.until(lambda number=number: len(protocol.received) == number + 1)
            await settle()
            assert len(protocol.received) == number + 1 and not transport.is_reading()
            transport.resume_reading()
            transport.resume_reading()
        assert protocol.received == [b"%d" % number for number in range(20)]
        await finish(protocol, peer)

    run(main())


@pytest.mark.parametrize("method", ["close", "abort"])
def test_closing_stops_at_once(run: Any, method: str) -> None:
    async def main() -> list[str]:
        protocol = Datagrams(datagram_received=lambda self: getattr(self.transport, method)())
        transport = await endpoint(protocol)
        peer = plain()
        for number in range(5):
            peer.sendto(b"%d" % number, transport.get_extra_info("sockname"))
        assert await protocol.until_called("connection_lost") is None
        await settle()
        assert protocol.received == [b"0"] and transport.is_closing()
        peer.close()
        return protocol.names

    assert run(main()) == ["connection_made", "datagram_received", "connection_lost"]


def test_a_protocol_replaced_meanwhile_hears_the_rest(run: Any) -> None:
    async def main() -> None:
        second = Datagrams()
        first = Datagrams(datagram_received=lambda self: self.transport.set_protocol(second))
        transport = await endpoint(first)
        second.transport = transport
        peer = plain()
        for number in range(3):
            peer.sendto(b"%d" % number, transport.get_extra_info("sockname"))
        await second.until(lambda: len(second.received) == 2)
        assert first.received == [b"0"] and second.received == [b"1", b"2"]
        assert transport.get_protocol() is second
        await finish(second, peer)

    run(main())


def test_what_datagram_received_raises_is_reported(run: Any) -> None:
    async def main() -> None:
        reports = Reports()
        protocol = Datagrams(datagram_received=ValueError("bad"))
        transport = await endpoint(protocol)
        peer = plain()
        for _ in range(3):
            peer.sendto(b"x", transport.get_extra_info("sockname"))
        await protocol.until(lambda: len(protocol.received) == 3)
        await settle()
        assert [str(report["exception"]) for report in reports] == ["bad"] * 3
        assert all("DatagramTransport._read_ready()" in report["message"] for report in reports)
        assert not transport.is_closing()
        await finish(protocol, peer)

    run(main())


def test_large_and_empty_datagrams_arrive_whole(run: Any) -> None:
    async def main() -> list[int]:
        protocol = Datagrams()
        transport = await endpoint(protocol)
        peer = plain()
        sizes = [65507, 0, 1, 40000]
        for size in sizes:
            peer.sendto(os.urandom(size), transport.get_extra_info("sockname"))
        await protocol.until(lambda: len(protocol.received) == len(sizes))
        await finish(protocol, peer)
        return [len(data) for data in protocol.received]

    assert run(main()) == [65507, 0, 1, 40000]


def test_max_size_cuts_datagrams(run: Any) -> None:
    async def main() -> list[bytes]:
        protocol = Datagrams()
        transport = await endpoint(protocol)
        assert transport.max_size == 256 * 1024
        transport.max_size = 4
        peer = plain()
        peer.sendto(b"0123456789", transport.get_extra_info("sockname"))
        peer.sendto(b"abc", transport.get_extra_info("sockname"))
        await protocol.until(lambda: len(protocol.received) == 2)
        await finish(protocol, peer)
        return protocol.received

    assert run(main()) == [b"0123", b"abc"]


def test_bytes_like_data_is_sent(run: Any) -> None:
    async def main() -> None:
        protocol = Datagrams()
        transport = await endpoint(protocol)
        peer = plain()
        for data in (b"bytes", bytearray(b"bytearray"), memoryview(b"memoryview")[2:]):
            transport.sendto(data, peer.getsockname())
        assert [await hear(peer) for _ in range(3)] == [b"bytes", b"bytearray", b"moryview"]
        for wrong, name in (("text", "str"), (None, "NoneType"), (5, "int")):
            with pytest.raises(TypeError) as raised:
                transport.sendto(wrong, peer.getsockname())
            assert str(raised.value) == f"data argument must be a bytes-like object, not '{name}'"
        await finish(protocol, peer)

    run(main())


def test_an_empty_datagram_is_sent_where_asyncio_sends_it(run: Any) -> None:
    async def main() -> bytes:
        protocol = Datagrams()
        transport = await endpoint(protocol)
        peer = plain()
        transport.sendto(b"", peer.getsockname())
        transport.sendto(b"after", peer.getsockname())
        first = await hear(peer)
        await finish(protocol, peer)
        return first

    transport = selector_events._SelectorDatagramTransport
    sends_empty = hasattr(transport, "_header_size") or 8 in transport.sendto.__code__.co_consts
    assert run(main()) == (b"" if sends_empty else b"after")


def test_too_large_data_is_an_error_of_the_protocol(run: Any) -> None:
    async def main() -> None:
        protocol = Datagrams()
        transport = await endpoint(protocol)
        transport.sendto(bytes(70000), ("127.0.0.1", 9))
        assert protocol.names == ["connection_made", "error_received"]
        assert protocol.argument("error_received").errno == errno.EMSGSIZE
        assert not transport.is_closing()
        await finish(protocol)

    run(main())


def test_what_error_received_raises_leaves_sendto(run: Any) -> None:
    async def main() -> None:
        protocol = Datagrams(error_received=LookupError("heard"))
        transport = await endpoint(protocol)
        with pytest.raises(LookupError, match="heard"):
            transport.sendto(bytes(70000), ("127.0.0.1", 9))
        await finish(protocol)

    run(main())


@pytest.mark.parametrize("address", [None, 5, ("127.0.0.1",), ("127.0.0.1", "port"), ("127.0.0.1", 70000)])
def test_an_address_that_is_none_ends_the_transport(run: Any, address: Any) -> None:
    async def main() -> tuple[list[str], type]:
        reports = Reports()
        protocol = Datagrams()
        transport = await endpoint(protocol)
        transport.sendto(b"x", address)
        lost = await protocol.until_called("connection_lost")
        assert [report["exception"] for report in reports] == [lost]
        assert reports[0]["transport"] is transport and reports[0]["protocol"] is protocol
        return [report["message"] for report in reports], type(lost)

    messages, kind = run(main())
    assert messages == ["Fatal write error on datagram transport"]
    assert kind is (OverflowError if address == ("127.0.0.1", 70000) else TypeError)


def test_names_are_looked_up(run: Any) -> None:
    async def main() -> bytes:
        protocol = Datagrams()
        transport = await endpoint(protocol)
        peer = plain()
        transport.sendto(b"by name", ("localhost", peer.getsockname()[1]))
        data = await hear(peer)
        await settle()
        assert "error_received" not in protocol.names
        transport.sendto(b"x", ("no.such.name.invalid", 1))
        assert isinstance(protocol.argument("error_received"), socket.gaierror)
        await finish(protocol, peer)
        return data

    assert run(main()) == b"by name"


def test_a_connected_endpoint_sends_to_its_peer_alone(run: Any) -> None:
    async def main() -> None:
        peer, stranger = plain(), plain()
        protocol = Datagrams()
        transport = await endpoint(protocol, remote_addr=peer.getsockname())
        assert transport.get_extra_info("peername") == peer.getsockname()
        transport.sendto(b"one")
        transport.sendto(b"two", None)
        transport.sendto(b"three", peer.getsockname())
        assert [await hear(peer) for _ in range(3)] == [b"one", b"two", b"three"]
        with pytest.raises(ValueError) as raised:
            transport.sendto(b"x", stranger.getsockname())
        assert str(raised.value) == f"Invalid address: must be None or {peer.getsockname()}"
        stranger.sendto(b"unheard", transport.get_extra_info("sockname"))
        peer.sendto(b"heard", transport.get_extra_info("sockname"))
        await protocol.until_called("datagram_received")
        assert protocol.calls[1:] == [("datagram_received", (b"heard", peer.getsockname()))]
        await finish(protocol, peer, stranger)

    run(main())


def test_a_closed_port_is_an_error_of_the_protocol(run: Any) -> None:
    async def main() -> None:
        peer = plain()
        protocol = Datagrams()
        transport = await endpoint(protocol, remote_addr=peer.getsockname())
        peer.close()
        transport.sendto(b"anybody?")
        assert isinstance(await protocol.until_called("error_received"), ConnectionRefusedError)
        assert not transport.is_closing()
        await finish(protocol)

    run(main())


async def to_a_full_socket(protocol: Datagrams, path: str, count: int) -> socket.socket:
    """So many kilobytes, more than a Unix socket that nobody reads takes; returns that socket."""
    peer = plain(socket.AF_UNIX, path)
    transport = await endpoint(protocol, family=socket.AF_UNIX, remote_addr=path)
    for number in range(count):
        transport.sendto(b"%04d" % number + bytes(1020))
    return peer


def test_a_full_socket_pauses_and_resumes_the_protocol(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        protocol = Datagrams()
        peer = await to_a_full_socket(protocol, str(tmp_path / "peer"), 600)
        assert protocol.names == ["connection_made", "pause_writing"]
        assert 64 * 1024 < protocol.transport.get_write_buffer_size() < 600 * 1032
        received = [await hear(peer) for _ in range(600)]
        assert [data[:4] for data in received] == [b"%04d" % number for number in range(600)]
        await protocol.until_called("resume_writing")
        assert protocol.transport.get_write_buffer_size() <= 600 * 8
        protocol.transport.sendto(b"more")
        assert await hear(peer) == b"more"
        await finish(protocol, peer)

    run(main())


def test_close_still_sends_what_is_buffered(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        protocol = Datagrams()
        peer = await to_a_full_socket(protocol, str(tmp_path / "peer"), 400)
        protocol.transport.close()
        await settle()
        assert "connection_lost" not in protocol.names and protocol.transport.is_closing()
        received = [await hear(peer) for _ in range(400)]
        assert [data[:4] for data in received] == [b"%04d" % number for number in range(400)]
        assert await protocol.until_called("connection_lost") is None
        peer.close()

    run(main())


def test_abort_drops_what_is_buffered(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        protocol = Datagrams()
        peer = await to_a_full_socket(protocol, str(tmp_path / "peer"), 400)
        protocol.transport.abort()
        assert await protocol.until_called("connection_lost") is None
        received = 0
        while True:
            try:
                received += len(peer.recv(2000)) // 1024
            except BlockingIOError:
                break
        assert 0 < received < 400
        peer.close()

    run(main())


def test_a_peer_that_goes_while_datagrams_wait_is_an_error_each(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        protocol = Datagrams()
        peer = await to_a_full_socket(protocol, str(tmp_path / "peer"), 400)
        peer.close()
        assert isinstance(await protocol.until_called("error_received"), ConnectionError)
        await finish(protocol)

    run(main())


def test_late_datagrams_are_dropped_with_a_warning(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        peer = plain()
        protocol = Datagrams()
        transport = await endpoint(protocol, remote_addr=peer.getsockname())
        transport.close()
        for _ in range(6):
            transport.sendto(b"late")
        await protocol.until_called("connection_lost")
        peer.close()

    with caplog.at_level(logging.WARNING, "asyncio"):
        run(main())
    assert [record.getMessage() for record in caplog.records] == ["socket.send() raised exception."] * 2


def test_connection_lost_is_called_once_and_then_the_socket_is_closed(run: Any) -> None:
    async def main() -> None:
        protocol = Datagrams(connection_lost=lambda self: seen.append(own.fileno()))
        seen: list[int] = []
        own = plain()
        number = own.fileno()
        transport = await endpoint(protocol, sock=own)
        transport.close()
        transport.close()
        transport.abort()
        assert transport.is_closing() and "connection_lost" not in protocol.names
        assert await protocol.until_called("connection_lost") is None
        await settle()
        assert protocol.names.count("connection_lost") == 1 and seen == [number] and own.fileno() == -1

    run(main())


def test_what_the_repr_and_the_attributes_tell(run: Any) -> None:
    async def main() -> None:
        protocol = Datagrams()
        transport = await endpoint(protocol)
        # asyncio's own is a DatagramTransport since 3.12; ioxide's on every version.
        own = selector_events._SelectorDatagramTransport
        is_own = issubclass(own, asyncio.DatagramTransport)
        assert isinstance(transport, asyncio.Transport)
        assert isinstance(transport, asyncio.DatagramTransport) >= is_own
        number = transport.get_extra_info("socket").fileno()
        assert transport.get_extra_info("peername") is None
        assert transport.get_extra_info("nothing", "default") == "default"
        assert transport.get_protocol() is protocol and transport.get_write_buffer_limits() == (16384, 65536)
        with pytest.raises(NotImplementedError):
            transport.write(b"x")
        name = type(transport).__name__
        await settle()
        assert repr(transport) == f"<{name} fd={number} read=polling write=<idle, bufsize=0>>"
        transport.pause_reading()
        assert repr(transport) == f"<{name} fd={number} read=idle write=<idle, bufsize=0>>"
        transport.close()
        assert repr(transport) == f"<{name} closing fd={number} read=idle write=<idle, bufsize=0>>"
        await protocol.until_called("connection_lost")
        assert repr(transport) == f"<{name} closed fd={number}>"

    run(main())


def test_a_descriptor_in_use_is_nobody_elses(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Datagrams()
        transport = await endpoint(protocol)
        number = transport.get_extra_info("socket").fileno()
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.add_reader(number, print)
        await finish(protocol)

    run(main())


def test_a_transport_that_is_dropped_warns_and_closes(loop: asyncio.AbstractEventLoop) -> None:
    own = plain()
    protocol = Datagrams()
    loop.run_until_complete(endpoint(protocol, sock=own))
    loop.close()
    with pytest.warns(ResourceWarning, match="unclosed transport <"):
        protocol.calls.clear()
        protocol.transport = None
        gc.collect()
    assert own.fileno() == -1


def test_callbacks_run_in_the_context_of_the_endpoint(run: Any) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")
    seen: list[str] = []

    async def main() -> None:
        variable.set("inside")
        protocol = Datagrams(datagram_received=lambda _: seen.append(variable.get()))
        transport = await endpoint(protocol)
        peer = plain()
        for _ in range(3):
            peer.sendto(b"x", transport.get_extra_info("sockname"))
        await protocol.until(lambda: len(seen) == 3)
        await finish(protocol, peer)

    run(main())
    assert seen == ["inside"] * 3
