"""`loop.start_tls` on either side, over TLS, over a foreign transport and under streams; sessions, names, certificates."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import os
import ssl
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from certificates import Authority
from recorder import MEGABYTE, TIMEOUT, Recorder, Reports
from recorder import connect as connect_plainly
from tls_peer import TlsPeer, both, connect, finish, serve, socket_pair

Run = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("records_pass")


async def upgrade(transport: Any, protocol: Recorder, peer: TlsPeer, context: ssl.SSLContext, **options: Any) -> Any:
    """The transport that start_tls returns, when the peer has done its handshake."""
    upgrading = asyncio.get_running_loop().start_tls(transport, protocol, context, **options)
    upgraded, _ = await asyncio.gather(upgrading, peer.handshake())
    return upgraded


@pytest.mark.parametrize("is_server", [False, True])
def test_a_running_connection_is_upgraded(run: Run, authority: Authority, is_server: bool) -> None:
    async def main() -> list[str]:
        protocol = Recorder()
        transport, far = await connect_plainly(protocol)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(far, b"STARTTLS\r\n")
        await protocol.until_called("data_received")
        ours, theirs = authority.server_context(), authority.client_context()
        if is_server:
            peer = TlsPeer(far, theirs, server_hostname="localhost")
            options: dict[str, Any] = {"server_side": True}
        else:
            ours, theirs = theirs, ours
            theirs.num_tickets = 0
            peer = TlsPeer(far, theirs, server_side=True)
            options = {"server_hostname": "localhost"}
        upgraded = await upgrade(transport, protocol, peer, ours, **options)
        assert upgraded is not transport and upgraded.get_protocol() is protocol
        assert upgraded.get_extra_info("socket") is transport.get_extra_info("socket")
        assert upgraded._ssl_protocol is transport.get_protocol()
        assert isinstance(transport.get_protocol(), asyncio.sslproto.SSLProtocol)
        upgraded.write(MEGABYTE)
        assert await peer.receive(len(MEGABYTE)) == MEGABYTE
        await peer.send(b"answer")
        await protocol.until(lambda: protocol.received.endswith(b"answer"))
        protocol.transport = upgraded
        await finish(protocol, peer)
        return [name for name in protocol.names if not name.endswith("_writing")]

    assert run(main()) == ["connection_made", "data_received", "data_received", "connection_lost"]


def test_tls_in_tls(run: Run, authority: Authority) -> None:
    async def main() -> None:
        protocol = Recorder()
        outer, outer_peer = await connect(protocol, authority)
        context = authority.server_context()
        context.num_tickets = 0
        inner_peer = TlsPeer(outer_peer.socket, context, server_side=True)

        async def pump(operation: Callable[..., Any], *arguments: Any) -> Any:
            while True:
                result, is_done = None, False
                with contextlib.suppress(ssl.SSLWantReadError):
                    result, is_done = operation(*arguments), True
                if data := inner_peer.outgoing.read():
                    await outer_peer.send(data)
                if is_done:
                    return result
                inner_peer.incoming.write(await outer_peer.pump(outer_peer.object.read, 1 << 18))

        inner_peer.pump = pump  # type: ignore[method-assign]
        upgrading = asyncio.get_running_loop().start_tls(outer, protocol, authority.client_context(), server_hostname="localhost")
        inner, _ = await asyncio.gather(upgrading, inner_peer.handshake())
        assert inner.get_extra_info("ssl_object") is not outer.get_extra_info("ssl_object")
        inner.write(MEGABYTE[:300_000])
        assert await inner_peer.receive(300_000) == MEGABYTE[:300_000]
        await outer_peer.send(inner_peer.encrypt(b"through both"))
        await protocol.until(lambda: protocol.received == b"through both")
        inner.abort()
        assert await protocol.until_called("connection_lost") is None
        outer_peer.socket.close()

    run(main())


class ForeignTransport(asyncio.Transport):
    """A transport in Python, over a pair of lists, as a library may have one."""

    _start_tls_compatible = True

    def __init__(self) -> None:
        super().__init__()
        self.protocol: Any = None
        self.written: list[bytes] = []
        self.calls: list[str] = []

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol  # type: ignore[no-any-return]

    def pause_reading(self) -> None:
        self.calls.append("pause_reading")

    def resume_reading(self) -> None:
        self.calls.append("resume_reading")

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return "close" in self.calls or "abort" in self.calls

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self._force_close(None)

    def _force_close(self, exc: BaseException | None) -> None:
        self.calls.append("abort")
        asyncio.get_running_loop().call_soon(self.protocol.connection_lost, exc)

    def receive(self, data: bytes) -> None:
        for start in range(0, len(data), 1000):
            part = data[start : start + 1000]
            buffer = self.protocol.get_buffer(-1)
            buffer[: len(part)] = part
            self.protocol.buffer_updated(len(part))

    def take(self) -> bytes:
        data = b"".join(self.written)
        self.written.clear()
        return data


def test_over_a_foreign_transport(run: Run, authority: Authority) -> None:
    async def main() -> list[str]:
        protocol, foreign = Recorder(), ForeignTransport()
        near, far = socket_pair()
        near.close()
        context = authority.server_context()
        context.num_tickets = 0
        peer = TlsPeer(far, context, server_side=True)
        upgrading = asyncio.ensure_future(
            asyncio.get_running_loop().start_tls(foreign, protocol, authority.client_context(), server_hostname="localhost")
        )

        def exchange(operation: Callable[..., Any], *arguments: Any) -> Any:
            peer.incoming.write(foreign.take())
            try:
                return operation(*arguments)
            except ssl.SSLWantReadError:
                return None
            finally:
                foreign.receive(peer.outgoing.read())

        async with asyncio.timeout(TIMEOUT):
            while not upgrading.done():
                await asyncio.sleep(0)
                if foreign.written:
                    exchange(peer.object.do_handshake)
        transport = await upgrading
        exchange(peer.object.do_handshake)
        transport.write(b"x" * 20_000)
        peer.incoming.write(foreign.take())
        assert peer.object.read(16384) + peer.object.read(16384) == b"x" * 20_000
        foreign.receive(peer.encrypt(b"y" * 5000))
        await protocol.until(lambda: protocol.received == b"y" * 5000)
        transport.close()
        peer.incoming.write(foreign.take())
        assert peer.object.read(10) == b""
        exchange(peer.object.unwrap)
        await asyncio.sleep(0)
        foreign.protocol.connection_lost(None)
        await protocol.until_called("connection_lost")
        far.close()
        return [*foreign.calls, *protocol.names]

    calls = run(main())
    assert calls == ["pause_reading", "resume_reading", "close", "data_received", "eof_received", "connection_lost"]


def test_what_start_tls_refuses(run: Run, authority: Authority) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, far = await connect_plainly(protocol)
        start_tls = asyncio.get_running_loop().start_tls
        assert inspect.iscoroutinefunction(start_tls)
        with pytest.raises(TypeError, match=r"^sslcontext is expected to be an instance of ssl\.SSLContext, got None$"):
            await start_tls(transport, protocol, None)
        with pytest.raises(TypeError, match=r"^transport <object object at .*> is not supported by start_tls\(\)$"):
            await start_tls(object(), protocol, authority.client_context())  # type: ignore[arg-type]
        transport.abort()
        await protocol.until_called("connection_lost")
        far.close()

    run(main())


def test_a_cancelled_upgrade_closes_the_connection(run: Run, authority: Authority) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, far = await connect_plainly(protocol)
        loop = asyncio.get_running_loop()
        upgrading = asyncio.ensure_future(loop.start_tls(transport, protocol, authority.client_context(), server_hostname="x"))
        assert await loop.sock_recv(far, 1 << 16)
        upgrading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upgrading
        assert transport.is_closing()
        assert await asyncio.wait_for(loop.sock_recv(far, 1), TIMEOUT) == b""
        far.close()

    run(main())


def test_streams_are_upgraded(run: Run, authority: Authority) -> None:
    async def main() -> tuple[bytes, bytes]:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.readline() == b"STARTTLS\n"
            writer.write(b"OK\n")
            await writer.drain()
            await writer.start_tls(authority.server_context())
            while line := await reader.readline():
                writer.write(line.upper())
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"STARTTLS\n")
            assert await reader.readline() == b"OK\n"
            plain = writer.transport
            await writer.start_tls(authority.client_context(), server_hostname="localhost")
            assert writer.transport is not plain
            assert writer.get_extra_info("ssl_object") is not None
            writer.write(b"hello\n")
            first = await reader.readline()
            writer.close()
            await writer.wait_closed()
            return first, await reader.read()

    assert run(main()) == (b"HELLO\n", b"")


def test_application_protocols_and_server_names(run: Run, authority: Authority) -> None:
    async def main() -> tuple[Any, Any, list[str | None]]:
        context, names = authority.server_context(), []
        context.set_alpn_protocols(["h2", "http/1.1"])
        context.sni_callback = lambda _object, name, _context: names.append(name)
        protocol = Recorder()
        near, far = socket_pair()
        client = authority.client_context()
        client.set_alpn_protocols(["http/1.1"])
        peer = TlsPeer(far, client, server_hostname="localhost")
        loop = asyncio.get_running_loop()
        transport = await both(loop.connect_accepted_socket(lambda: protocol, near, ssl=context), peer)
        ssl_object = transport.get_extra_info("ssl_object")
        await finish(protocol, peer)
        return ssl_object.selected_alpn_protocol(), peer.object.selected_alpn_protocol(), names

    assert run(main()) == ("http/1.1", "http/1.1", ["localhost"])


def test_a_context_that_the_server_name_has_chosen(run: Run, authority: Authority) -> None:
    async def main() -> bytes:
        first, second = authority.server_context(), authority.server_context()
        first.sni_callback = lambda ssl_object, _name, _context: setattr(ssl_object, "context", second)
        protocol = Recorder()
        transport, peer = await serve(protocol, authority, ssl=first)
        assert transport.get_extra_info("ssl_object").context is second
        await peer.send(b"data")
        data: bytes = await protocol.until_called("data_received")
        await finish(protocol, peer)
        return data

    assert run(main()) == b"data"


def test_certificates_of_clients(run: Run, authority: Authority) -> None:
    async def main() -> tuple[Any, str]:
        context = authority.server_context()
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.folder / "ca.pem")
        protocol = Recorder()
        near, far = socket_pair()
        client = authority.client_context()
        client.load_cert_chain(authority.folder / "client.pem")
        peer = TlsPeer(far, client, server_hostname="localhost")
        loop = asyncio.get_running_loop()
        transport = await both(loop.connect_accepted_socket(lambda: protocol, near, ssl=context), peer)
        subject = transport.get_extra_info("peercert")["subjectAltName"]
        await finish(protocol, peer)
        with pytest.raises(ssl.SSLError) as error:
            await serve(Recorder(), authority, ssl=context)
        return subject, str(error.value.reason)

    assert run(main()) == ((("DNS", "client.example"),), "PEER_DID_NOT_RETURN_A_CERTIFICATE")


def test_a_session_is_used_again(run: Run, authority: Authority) -> None:
    async def main() -> list[bool]:
        context, client = authority.server_context(), authority.client_context()
        session, reused = None, []
        for _ in range(2):
            protocol = Recorder()
            near, far = socket_pair()
            peer = TlsPeer(far, client, server_hostname="localhost", session=session)
            loop = asyncio.get_running_loop()
            transport = await both(loop.connect_accepted_socket(lambda: protocol, near, ssl=context), peer)
            transport.write(b"x")
            assert await peer.receive(1) == b"x"
            session = peer.object.session
            reused.append(transport.get_extra_info("ssl_object").session_reused)
            await finish(protocol, peer)
        return reused

    assert run(main()) == [False, True]


@pytest.mark.parametrize("ending", ["close", "abort", "failed handshake", "cancelled handshake"])
def test_nothing_is_left_of_many_connections(run: Run, authority: Authority, ending: str) -> None:
    async def once() -> weakref.ref[Any] | None:
        protocol = Recorder()
        if ending == "failed handshake":
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(protocol, authority, server_hostname="other")
            return None
        if ending == "cancelled handshake":
            near, far = socket_pair()
            loop = asyncio.get_running_loop()
            options = {"ssl": authority.client_context(), "server_hostname": "localhost"}
            connecting = asyncio.ensure_future(loop.create_connection(lambda: protocol, sock=near, **options))
            await loop.sock_recv(far, 1 << 16)
            connecting.cancel()
            await asyncio.wait([connecting])
            assert await loop.sock_recv(far, 1) == b""
            far.close()
            return None
        transport, peer = await connect(protocol, authority)
        left = weakref.ref(transport)
        if ending == "close":
            transport.close()
            await peer.receive()
            await peer.close_notify()
            await protocol.until_called("connection_lost")
        await finish(protocol, peer)
        return left

    async def main() -> None:
        reports = Reports()
        await once()
        gc.collect()
        descriptors, objects = os.listdir("/proc/self/fd"), ssl_objects()
        left = [await once() for _ in range(10)]
        await asyncio.sleep(0)
        gc.collect()
        assert os.listdir("/proc/self/fd") == descriptors
        assert ssl_objects() <= objects
        assert all(transport is None or transport() is None for transport in left)
        assert reports == []

    def ssl_objects() -> int:
        return sum(isinstance(thing, ssl.SSLObject | asyncio.sslproto.SSLProtocol) for thing in gc.get_objects())

    run(main())


def test_a_swarm_of_clients_with_every_kind_of_end(run: Run, authority: Authority) -> None:
    """No byte reaches a connection that it was not meant for, whatever happens beside it."""

    async def main() -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while data := await reader.read(1 << 16):
                    writer.write(data)
                    await writer.drain()
            except (ConnectionError, ssl.SSLError):
                pass
            finally:
                writer.close()

        async def client(number: int) -> None:
            options = {"ssl": authority.client_context(), "server_hostname": "localhost"}
            connecting = asyncio.ensure_future(asyncio.open_connection("127.0.0.1", port, **options))
            if number % 4 == 1:
                for _ in range(number % 7):
                    await asyncio.sleep(0)
                connecting.cancel()
                await asyncio.wait([connecting])
                if connecting.cancelled():
                    return
            reader, writer = await connecting
            marked = bytes([number]) * 5000
            writer.write(marked)
            assert await reader.readexactly(5000) == marked
            if number % 4 == 2:
                writer.transport.abort()
            else:
                writer.close()
            await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])

        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=authority.server_context())
        async with server:
            port = server.sockets[0].getsockname()[1]
            async with asyncio.timeout(TIMEOUT):
                await asyncio.gather(*(client(number) for number in range(100)))

    run(main())
