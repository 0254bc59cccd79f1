"""loop.sendfile and loop.sock_sendfile: amounts, positions, errors, falling back, and what becomes of the transport."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recorder import MEGABYTE, Recorder, connect, finish, receive, receive_all

Run = Callable[..., Any]

DATA = MEGABYTE * 3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


async def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets, whose buffers are far smaller than the file."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    return ours, theirs


async def sent_and_received(send: Any, ours: socket.socket, theirs: socket.socket) -> tuple[int, bytes]:
    receiving = asyncio.ensure_future(receive_all(theirs))
    count = await send
    ours.shutdown(socket.SHUT_WR)
    return count, await receiving


AMOUNTS = [(0, None), (7, None), (0, 5), (1000, 2000000), (0, 2 * len(DATA)), (len(DATA), None)]


@pytest.mark.parametrize("offset,count", AMOUNTS)
def test_amounts_and_positions(run: Run, path: Path, offset: int, count: int | None) -> None:
    async def main() -> None:
        ours, theirs = await pair()
        with path.open("rb") as file, ours, theirs:
            sending = asyncio.get_running_loop().sock_sendfile(ours, file, offset, count)
            expected = DATA[offset:] if count is None else DATA[offset : offset + count]
            assert await sent_and_received(sending, ours, theirs) == (len(expected), expected)
            assert file.tell() == (offset + len(expected) if expected else file.tell())

    run(main())


def test_an_empty_file(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        empty = tmp_path / "empty"
        empty.touch()
        ours, theirs = await pair()
        with empty.open("rb") as file, ours, theirs:
            assert await asyncio.get_running_loop().sock_sendfile(ours, file) == 0

    run(main())


class NotAFile(io.BytesIO):
    """Has a position but no descriptor."""


def test_falling_back(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = await pair()
        file = NotAFile(DATA)
        with ours, theirs:
            with pytest.raises(asyncio.SendfileNotAvailableError, match="not a regular file"):
                await loop.sock_sendfile(ours, file, fallback=False)
            sending = loop.sock_sendfile(ours, file, 3, 1000000)
            assert await sent_and_received(sending, ours, theirs) == (1000000, DATA[3:1000003])
            assert file.tell() == 1000003

    run(main())


def test_a_file_without_pages_falls_back(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = await pair()
        with open("/dev/zero", "rb", buffering=0) as file, ours, theirs:
            assert await loop.sock_sendfile(ours, file, 0, 100) == 100
            assert await receive(theirs, 100) == bytes(100)

    run(main())


WRONG: list[tuple[dict[str, Any], type, str]] = [
    ({"count": 0}, ValueError, "count must be a positive integer (got 0)"),
    ({"count": -1}, ValueError, "count must be a positive integer (got -1)"),
    ({"count": 1.5}, TypeError, "count must be a positive integer (got 1.5)"),
    ({"offset": -1}, ValueError, "offset must be a non-negative integer (got -1)"),
    ({"offset": "0"}, TypeError, "offset must be a non-negative integer (got '0')"),
]


@pytest.mark.parametrize("arguments,kind,message", WRONG)
def test_wrong_arguments(run: Run, path: Path, arguments: dict[str, Any], kind: type, message: str) -> None:
    async def main() -> None:
        ours, theirs = await pair()
        with path.open("rb") as file, ours, theirs:
            with pytest.raises(kind) as caught:
                await asyncio.get_running_loop().sock_sendfile(ours, file, **arguments)
            assert type(caught.value) is kind and str(caught.value) == message

    run(main())


def test_text_files_and_datagram_sockets_are_refused(run: Run, path: Path) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        ours, theirs = await pair()
        with path.open() as text, path.open("rb") as file, ours, theirs, socket.socket(type=socket.SOCK_DGRAM) as other:
            with pytest.raises(ValueError, match="file should be opened in binary mode"):
                await loop.sock_sendfile(ours, text)
            with pytest.raises(ValueError, match="only SOCK_STREAM type sockets are supported"):
                await loop.sock_sendfile(other, file)

    run(main())


def test_a_cancelled_send_stops_and_leaves_no_watcher(run: Run, path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = await pair()
        with path.open("rb") as file, ours, theirs:
            sending = asyncio.ensure_future(loop.sock_sendfile(ours, file))
            await asyncio.sleep(0.01)
            assert not sending.done()
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            assert not loop.remove_writer(ours)

    run(main())


def test_a_peer_that_goes_away(run: Run, path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = await pair()
        with path.open("rb") as file, ours:
            sending = asyncio.ensure_future(loop.sock_sendfile(ours, file))
            await asyncio.sleep(0.01)
            theirs.close()
            with pytest.raises(ConnectionError):
                await sending
            assert 0 < file.tell() < len(DATA)

    run(main())


@pytest.mark.parametrize("native", [True, False])
def test_through_a_transport(run: Run, path: Path, native: bool) -> None:
    """What was written before comes first, nothing is read meanwhile, and the transport goes on afterwards."""

    async def main() -> list[tuple[str, Any]]:
        loop = asyncio.get_running_loop()
        protocol = Recorder()
        transport, peer = await connect(protocol)
        with path.open("rb") if native else NotAFile(DATA) as file:
            transport.write(b"before")
            sending = asyncio.ensure_future(loop.sendfile(transport, file, 10, 1500000))
            await asyncio.sleep(0)
            await loop.sock_sendall(peer, b"meanwhile")
            assert await receive(peer, 6 + 1500000) == b"before" + DATA[10:1500010]
            assert await sending == 1500000
            assert file.tell() == 1500010
        transport.write(b"after")
        assert await receive(peer, 5) == b"after"
        assert await protocol.until_called("data_received") == b"meanwhile"
        await finish(protocol, peer)
        return protocol.calls[1:]

    assert run(main()) == [("data_received", b"meanwhile"), ("connection_lost", None)]


def test_writing_during_a_send_is_refused(run: Run, path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Recorder()
        transport, peer = await connect(protocol)
        with path.open("rb") as file:
            sending = asyncio.ensure_future(loop.sendfile(transport, file))
            await asyncio.sleep(0.01)
            with pytest.raises(RuntimeError, match="sendfile is in progress"):
                transport.write(b"x")
            assert await receive(peer, len(DATA)) == DATA
            assert await sending == len(DATA)
        await finish(protocol, peer)

    run(main())


def test_a_cancelled_send_gives_the_transport_back(run: Run, path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Recorder()
        transport, peer = await connect(protocol)
        with path.open("rb") as file:
            sending = asyncio.ensure_future(loop.sendfile(transport, file))
            await asyncio.sleep(0.01)
            assert not transport.is_reading()
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
        assert transport.is_reading()
        transport.write(b"x")
        await loop.sock_sendall(peer, b"y")
        assert await protocol.until_called("data_received") == b"y"
        transport.abort()
        await protocol.until_called("connection_lost")
        peer.close()

    run(main())


class OfNoUse(asyncio.Transport):
    def is_closing(self) -> bool:
        return False


def test_transports_that_cannot(run: Run, path: Path) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        protocol = Recorder()
        transport, peer = await connect(protocol)
        with path.open("rb") as file:
            with pytest.raises(RuntimeError, match=r"sendfile is not supported for transport <.*OfNoUse"):
                await loop.sendfile(OfNoUse(), file)
            with pytest.raises(asyncio.SendfileNotAvailableError):
                await loop.sendfile(transport, NotAFile(DATA), fallback=False)
            transport.close()
            with pytest.raises(RuntimeError, match="Transport is closing"):
                await loop.sendfile(transport, file)
        await protocol.until_called("connection_lost")
        peer.close()

    run(main())
