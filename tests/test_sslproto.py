"""TLS connections: handshake, data both ways, flow control; everything on both paths of the records."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any

import pytest

from certificates import Authority
from recorder import MEGABYTE, TIMEOUT, BufferedRecorder, Recorder, Reports
from tls_peer import connect, finish, serve, socket_pair

Run = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("records_pass")


def test_a_connection_from_beginning_to_end(run: Run, authority: Authority) -> None:
    async def main() -> list[tuple[str, Any]]:
        protocol = Recorder()
        transport, peer = await connect(protocol, authority)
        assert protocol.calls == [("connection_made", transport)]
        assert isinstance(transport, asyncio.Transport) and isinstance(transport, asyncio.sslproto._SSLProtocolTransport)
        assert transport.is_reading() and not transport.is_closing() and transport.get_protocol() is protocol
        await peer.send(b"request")
        assert await protocol.until_called("data_received") == b"request"
        transport.write(b"answer")
        assert await peer.receive(6) == b"answer"
        await peer.close_notify()
        await protocol.until_called("connection_lost")
        assert await peer.receive() == b""
        peer.socket.close()
        assert transport.is_closing()
        return protocol.calls[1:]

    expected = [("data_received", b"request"), ("eof_received", None), ("connection_lost", None)]
    assert run(main()) == expected


@pytest.mark.parametrize("begin", [connect, serve])
def test_much_data_passes_both_ways(run: Run, authority: Authority, begin: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await begin(protocol, authority)
        for size in (1, 16384, 16385, 100_000, len(MEGABYTE)):
            data = MEGABYTE[:size]
            received = len(protocol.received)
            sending = asyncio.ensure_future(peer.send(data))
            await protocol.until(lambda: len(protocol.received) == received + size)
            assert protocol.received[received:] == data
            await sending
            transport.write(data)
            assert await peer.receive(size) == data
        transport.writelines([b"a", bytearray(b"b" * 20_000), memoryview(b"c"), b""])
        assert await peer.receive(20_002) == b"a" + b"b" * 20_000 + b"c"
        await finish(protocol, peer)

    run(main())


def test_what_a_buffered_protocol_gets(run: Run, authority: Authority) -> None:
    async def main() -> tuple[bytes, list[Any]]:
        protocol = BufferedRecorder(memoryview(bytearray(1000)))
        _, peer = await connect(protocol, authority)
        await peer.send(MEGABYTE[:5500])
        await protocol.until(lambda: len(protocol.data) == 5500)
        counts = [argument for name, argument in protocol.calls if name == "buffer_updated"]
        await finish(protocol, peer)
        return protocol.data, counts

    assert run(main()) == (MEGABYTE[:5500], [1000] * 5 + [500])


def test_records_that_arrive_together_are_received_together(run: Run, authority: Authority) -> None:
    async def main() -> list[bytes]:
        protocol = Recorder()
        _, peer = await connect(protocol, authority)
        records = [peer.encrypt(data) for data in (b"one ", b"two ", b"three ", b"four")]
        together = b"".join(records)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(peer.socket, together[:-5])
        await protocol.until(lambda: protocol.received == b"one two three ")
        await loop.sock_sendall(peer.socket, together[-5:])
        await protocol.until(lambda: protocol.received == b"one two three four")
        await finish(protocol, peer)
        return [argument for name, argument in protocol.calls if name == "data_received"]

    assert run(main()) == [b"one two three ", b"four"]


def test_extra_information(run: Run, authority: Authority) -> None:
    async def main() -> None:
        protocol = Recorder()
        context = authority.client_context()
        transport, peer = await connect(protocol, authority, ssl=context)
        assert transport.get_extra_info("sslcontext") is context
        ssl_object = transport.get_extra_info("ssl_object")
        assert isinstance(ssl_object, ssl.SSLObject) and ssl_object.context is context
        assert transport.get_extra_info("peercert") == ssl_object.getpeercert()
        assert transport.get_extra_info("cipher") == ssl_object.cipher() == peer.object.cipher()
        assert transport.get_extra_info("compression", 1) is None
        assert transport.get_extra_info("socket").family == socket.AF_UNIX
        assert transport.get_extra_info("nothing", "default") == "default"
        await finish(protocol, peer)
        assert transport.get_extra_info("ssl_object") is ssl_object
        assert transport.get_extra_info("socket", "gone") == "gone"

    run(main())


@pytest.mark.parametrize("name", ["other", "127.0.0.2"])
def test_a_certificate_for_another_host(run: Run, authority: Authority, name: str) -> None:
    async def main() -> str:
        protocol, reports = Recorder(), Reports()
        with pytest.raises(ssl.SSLCertVerificationError) as error:
            await connect(protocol, authority, server_hostname=name)
        assert protocol.calls == [] and reports == []
        return error.value.verify_message

    assert run(main()) in (
        "Hostname mismatch, certificate is not valid for 'other'.",
        "IP address mismatch, certificate is not valid for '127.0.0.2'.",
    )


def test_a_certificate_of_an_unknown_authority(run: Run, authority: Authority) -> None:
    async def main() -> str:
        with pytest.raises(ssl.SSLCertVerificationError) as error:
            await connect(Recorder(), authority, ssl=ssl.create_default_context())
        return error.value.verify_message

    assert run(main()) == "unable to get local issuer certificate"


def test_a_peer_that_speaks_no_tls(run: Run, authority: Authority) -> None:
    async def main() -> tuple[str, str]:
        near, far = socket_pair()
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(far, b"HTTP/1.0 400 Bad Request\r\n\r\n")
        with pytest.raises(ssl.SSLError) as error:
            options = {"ssl": authority.client_context(), "server_hostname": "localhost"}
            await loop.create_connection(Recorder, sock=near, **options)
        far.close()
        assert near.fileno() == -1
        return type(error.value).__name__, str(error.value.reason)

    assert run(main()) in [("SSLError", "WRONG_VERSION_NUMBER"), ("SSLError", "RECORD_LAYER_FAILURE")]


@pytest.mark.parametrize("ending", ["end of stream", "reset"])
def test_a_peer_that_goes_in_the_middle_of_the_handshake(run: Run, authority: Authority, ending: str) -> None:
    async def main() -> tuple[str, Any]:
        loop = asyncio.get_running_loop()
        reports = Reports()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            options = {"ssl": authority.client_context(), "server_hostname": "localhost"}
            connecting = asyncio.ensure_future(
                loop.create_connection(Recorder, "127.0.0.1", listener.getsockname()[1], **options)
            )
            accepted, _ = await loop.sock_accept(listener)
            assert await loop.sock_recv(accepted, 5)
            if ending == "reset":
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                while True:
                    try:
                        accepted.recv(1 << 16)
                    except BlockingIOError:
                        break
            accepted.close()
            with pytest.raises(ConnectionResetError) as error:
                await asyncio.wait_for(connecting, TIMEOUT)
        assert reports == []
        return type(error.value).__name__, error.value.errno

    expected = ("ConnectionResetError", 104 if ending == "reset" else None)
    assert run(main()) == expected


def test_a_silent_peer(run: Run, authority: Authority) -> None:
    async def main() -> str:
        near, far = socket_pair()
        options = {"ssl": authority.client_context(), "server_hostname": "localhost", "ssl_handshake_timeout": 0.05}
        with pytest.raises(ConnectionAbortedError) as error:
            await asyncio.get_running_loop().create_connection(Recorder, sock=near, **options)
        far.close()
        assert near.fileno() == -1
        return str(error.value)

    assert run(main()) == "SSL handshake is taking longer than 0.05 seconds: aborting the connection"


@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
@pytest.mark.parametrize("value", [0, -1.5])
def test_a_timeout_that_is_not_positive(run: Run, authority: Authority, name: str, value: float) -> None:
    async def main() -> str:
        near, far = socket_pair()
        with near, far, pytest.raises(ValueError) as error:
            options = {"ssl": authority.client_context(), "server_hostname": "localhost", name: value}
            await asyncio.get_running_loop().create_connection(Recorder, sock=near, **options)
        return str(error.value)

    assert run(main()) == f"{name} should be a positive number, got {value}"


def test_a_cancelled_handshake_leaves_nothing(run: Run, authority: Authority) -> None:
    async def main() -> None:
        near, far = socket_pair()
        loop = asyncio.get_running_loop()
        reports = Reports()
        options = {"ssl": authority.client_context(), "server_hostname": "localhost"}
        connecting = asyncio.ensure_future(loop.create_connection(Recorder, sock=near, **options))
        assert await loop.sock_recv(far, 1 << 16)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert await asyncio.wait_for(loop.sock_recv(far, 1), TIMEOUT) == b""
        far.close()
        assert near.fileno() == -1 and reports == []

    run(main())


def test_pausing_and_resuming_reading(run: Run, authority: Authority) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connect(protocol, authority)
        transport.pause_reading()
        assert not transport.is_reading()
        sending = asyncio.ensure_future(peer.send(MEGABYTE * 2))
        await asyncio.sleep(0.05)
        assert protocol.received == b"" and not sending.done()
        assert transport.get_read_buffer_size() >= 256 * 1024
        transport.resume_reading()
        await protocol.until(lambda: len(protocol.received) == 2 * len(MEGABYTE))
        assert protocol.received == MEGABYTE * 2
        await sending
        await finish(protocol, peer)

    run(main())


def test_flow_control_of_writing(run: Run, authority: Authority) -> None:
    async def main() -> list[str]:
        protocol = Recorder()
        transport, peer = await connect(protocol, authority)
        assert transport.get_write_buffer_limits() == (128 * 1024, 512 * 1024)
        transport.set_write_buffer_limits(high=100_000)
        assert transport.get_write_buffer_limits() == (25_000, 100_000)
        with pytest.raises(ValueError, match=r"high \(1\) must be >= low \(2\) must be >= 0"):
            transport.set_write_buffer_limits(1, 2)
        transport.write(MEGABYTE)
        transport.write(MEGABYTE)
        await protocol.until_called("pause_writing")
        assert transport.get_write_buffer_size() > 100_000
        assert await peer.receive(2 * len(MEGABYTE)) == 2 * MEGABYTE
        await protocol.until_called("resume_writing")
        assert transport.get_write_buffer_size() == 0
        await finish(protocol, peer)
        return protocol.names

    assert run(main()) == ["connection_made", "pause_writing", "resume_writing", "connection_lost"]


def test_arguments_of_write(run: Run, authority: Authority) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connect(protocol, authority)
        for data, name in (("text", "str"), (None, "NoneType"), ([b""], "list")):
            with pytest.raises(TypeError, match=f"^data: expecting a bytes-like instance, got {name}$"):
                transport.write(data)
        assert transport.can_write_eof() is False
        with pytest.raises(NotImplementedError):
            transport.write_eof()
        transport.write(b"")
        transport.write(b"fine")
        assert await peer.receive(4) == b"fine"
        with pytest.raises(TypeError):
            transport.writelines([1])
        await finish(protocol, peer)

    run(main())


def test_writing_after_the_end(run: Run, authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connect(protocol, authority)
        await finish(protocol, peer)
        for _ in range(6):
            transport.write(b"too late")

    run(main())
    assert [record.getMessage() for record in caplog.records].count("SSL connection is closed") == 2


def test_a_transport_that_is_closed_twice_forgets_its_connection(run: Run, authority: Authority) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connect(protocol, authority)
        transport.close()
        transport.close()
        assert transport._ssl_protocol is None
        with pytest.raises(AttributeError, match="'NoneType' object has no attribute '_write_appdata'"):
            transport.write(b"data")
        await peer.close_notify()
        await protocol.until_called("connection_lost")
        peer.socket.close()

    run(main())


def test_an_exception_in_data_received(run: Run, authority: Authority) -> None:
    async def main() -> tuple[list[str], str]:
        mistake = ValueError("mistake")
        protocol, reports = Recorder(data_received=mistake), Reports()
        _, peer = await connect(protocol, authority)
        await peer.send(b"data")
        assert await protocol.until_called("connection_lost") is mistake
        peer.socket.close()
        assert [report["exception"] for report in reports] == [mistake]
        assert reports[0]["protocol"] is not None and reports[0]["transport"] is not None
        return protocol.names, reports[0]["message"]

    expected = (["connection_made", "data_received", "connection_lost"], "Fatal error on SSL protocol")
    assert run(main()) == expected


def test_eof_received_cannot_keep_the_connection(run: Run, authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        protocol = Recorder(eof_received=True)
        _, peer = await connect(protocol, authority)
        await peer.close_notify()
        await protocol.until_called("connection_lost")
        peer.socket.close()

    run(main())
    expected = "returning true from eof_received() has no effect when using ssl"
    assert expected in [record.getMessage() for record in caplog.records]


def test_debug_mode_logs_the_handshake(run: Run, authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        protocol = Recorder()
        _, peer = await connect(protocol, authority)
        await finish(protocol, peer)

    with caplog.at_level("DEBUG", "asyncio"):
        run(main(), debug=True)
    lines = [record.msg for record in caplog.records]
    assert "%r starts SSL handshake" in lines and "%r: SSL handshake took %.1f ms" in lines


def test_records_pass_as_they_should(authority: Authority, records_pass: str) -> None:
    import ioxide

    async def main() -> bool:
        protocol = Recorder()
        transport, peer = await connect(protocol, authority)
        is_direct = transport._ssl_protocol._is_direct
        await finish(protocol, peer)
        return bool(is_direct)

    # Where `_ssl` is part of the interpreter, nothing can be verified.
    verifiable = records_pass == "directly" and "_ssl" in os.path.basename(getattr(ssl._ssl, "__file__", ""))
    with asyncio.Runner(loop_factory=ioxide.new_event_loop) as runner:
        assert runner.run(main()) is verifiable
