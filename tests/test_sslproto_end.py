"""How TLS connections end: close_notify both ways, ends of stream, damaged records, alerts, timeouts, abort."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import pytest

from certificates import Authority
from recorder import MEGABYTE, Recorder, Reports
from tls_peer import connect

Run = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("records_pass")


def test_close_sends_what_is_written_and_says_goodbye(run: Run, authority: Authority) -> None:
    async def main() -> list[tuple[str, Any]]:
        protocol = Recorder()
        transport, peer = await connect(protocol, authority)
        transport.write(MEGABYTE)
        transport.close()
        assert transport.is_closing()
        assert await peer.receive() == MEGABYTE
        await peer.close_notify()
        await protocol.until_called("connection_lost")
        peer.socket.close()
        return [call for call in protocol.calls[1:] if call[0] not in ("pause_writing", "resume_writing")]

    assert run(main()) == [("eof_received", None), ("connection_lost", None)]


def test_a_peer_that_does_not_answer_close_notify(run: Run, authority: Authority) -> None:
    async def main() -> tuple[str, str]:
        protocol = Recorder()
        transport, peer = await connect(protocol, authority, ssl_shutdown_timeout=0.05)
        transport.close()
        exception = await protocol.until_called("connection_lost")
        peer.socket.close()
        return type(exception).__name__, str(exception)

    assert run(main()) == ("TimeoutError", "SSL shutdown timed out")


def test_an_end_of_stream_without_close_notify(run: Run, authority: Authority) -> None:
    async def main() -> list[tuple[str, Any]]:
        protocol = Recorder()
        _, peer = await connect(protocol, authority)
        await peer.send(b"last words")
        peer.socket.close()
        await protocol.until_called("connection_lost")
        return protocol.calls[1:]

    assert run(main()) == [("data_received", b"last words"), ("eof_received", None), ("connection_lost", None)]


def test_a_truncated_record(run: Run, authority: Authority) -> None:
    async def main() -> list[tuple[str, Any]]:
        protocol = Recorder()
        _, peer = await connect(protocol, authority)
        await asyncio.get_running_loop().sock_sendall(peer.socket, peer.encrypt(b"never to be seen")[:-1])
        peer.socket.close()
        await protocol.until_called("connection_lost")
        return protocol.calls[1:]

    assert run(main()) == [("eof_received", None), ("connection_lost", None)]


def test_a_damaged_record(run: Run, authority: Authority) -> None:
    async def main() -> tuple[list[str], str, str]:
        protocol, reports = Recorder(), Reports()
        _, peer = await connect(protocol, authority)
        good, bad = peer.encrypt(b"good"), bytearray(peer.encrypt(b"bad"))
        bad[-1] ^= 1
        await asyncio.get_running_loop().sock_sendall(peer.socket, good + bad)
        exception = await protocol.until_called("connection_lost")
        peer.socket.close()
        assert reports == []
        return protocol.names[1:], type(exception).__name__, str(exception)[:50]

    names, kind, text = run(main())
    # What came with the damaged record is lost with it, as in asyncio.
    assert names == ["connection_lost"] and kind == "SSLError"
    # What newer libraries call a bad message authentication code.
    assert text.startswith(("[SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC]", "[SSL: RECORD_LAYER_FAILURE]"))


def test_an_alert_of_the_peer(run: Run, authority: Authority) -> None:
    async def main() -> tuple[str, str]:
        protocol = Recorder()
        context = authority.client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        transport, peer = await connect(protocol, authority, ssl=context)
        transport.write(b"x" * 100)
        data = bytearray(await asyncio.get_running_loop().sock_recv(peer.socket, 1 << 16))
        data[-1] ^= 1
        peer.incoming.write(data)
        with pytest.raises(ssl.SSLError):
            peer.object.read(100)
        await peer.flush()
        exception = await protocol.until_called("connection_lost")
        peer.socket.close()
        return type(exception).__name__, exception.reason

    assert run(main()) in [("SSLError", "SSLV3_ALERT_BAD_RECORD_MAC"), ("SSLError", "SSL/TLS_ALERT_BAD_RECORD_MAC")]


def test_abort(run: Run, authority: Authority) -> None:
    async def main() -> list[tuple[str, Any]]:
        protocol = Recorder()
        transport, peer = await connect(protocol, authority)
        transport.abort()
        assert transport.is_closing()
        await protocol.until_called("connection_lost")
        assert await asyncio.get_running_loop().sock_recv(peer.socket, 100) == b""
        peer.socket.close()
        transport.abort()
        return protocol.calls[1:]

    assert run(main()) == [("connection_lost", None)]
