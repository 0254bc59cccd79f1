"""Bad input: what asyncio refuses, ioxide refuses with the same exception and the same message.

Each case runs on both loops, in debug mode and without it, and asyncio's answer is the oracle; the table says which
exception it has to be, so that a case that both let pass fails.
What it leaves to others: exceptions out of callbacks and protocols (test_callback_errors.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import socket
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import ioxide

Loop = asyncio.AbstractEventLoop
Call = Callable[[Loop], Any]
FACTORIES: dict[str, Callable[[], Loop]] = {"asyncio": asyncio.SelectorEventLoop, "ioxide": ioxide.new_event_loop}


async def nothing() -> None:
    pass


async def generator() -> Any:
    yield 1


def coroutine_case(call: Callable[..., Coroutine[Any, Any, Any]]) -> Call:
    """The case of a method that is a coroutine: its exception may come when it is called or when it is awaited."""

    def run(loop: Loop) -> Any:
        async def main() -> Any:
            return await asyncio.wait_for(call(loop), 10)

        return loop.run_until_complete(main())

    return run


def with_pair(call: Callable[[Loop, socket.socket, socket.socket], Any]) -> Call:
    """The case that needs a pair of connected sockets."""

    def run(loop: Loop) -> Any:
        one, other = socket.socketpair()
        with one, other:
            one.setblocking(False)
            other.setblocking(False)
            outcome = call(loop, one, other)
            if asyncio.iscoroutine(outcome):
                return coroutine_case(lambda _: outcome)(loop)
            return outcome

    return run


def closed(call: Call) -> Call:
    def run(loop: Loop) -> Any:
        loop.close()
        outcome = call(loop)
        if asyncio.iscoroutine(outcome):
            outcome.send(None)

    return run


def while_running(call: Call) -> Call:
    def run(loop: Loop) -> Any:
        async def main() -> Any:
            outcome = call(loop)
            return await outcome if asyncio.iscoroutine(outcome) else outcome

        return loop.run_until_complete(main())

    return run


def with_transport(call: Callable[[Loop, asyncio.Transport, socket.socket], Any], *, closing: bool = False) -> Call:
    """The case that needs a transport over one end of a pair; its socket is handed in too."""

    def run(loop: Loop) -> Any:
        async def main() -> Any:
            one, other = socket.socketpair()
            with other:
                transport, _ = await loop.create_connection(asyncio.Protocol, sock=one)
                if closing:
                    transport.close()
                try:
                    outcome = call(loop, transport, one)
                    return await outcome if asyncio.iscoroutine(outcome) else outcome
                finally:
                    transport.abort()
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)

        return loop.run_until_complete(main())

    return run


def async_pair(call: Callable[..., Coroutine[Any, Any, Any]]) -> Call:
    return with_pair(call)


WRONG_TYPES: dict[str, tuple[type[BaseException], Call]] = {
    "call_soon()": (TypeError, lambda loop: loop.call_soon()),
    "call_soon(unknown=1)": (TypeError, lambda loop: loop.call_soon(print, unknown=1)),
    "call_soon_threadsafe()": (TypeError, lambda loop: loop.call_soon_threadsafe()),
    "call_later()": (TypeError, lambda loop: loop.call_later()),
    "call_later(1)": (TypeError, lambda loop: loop.call_later(1)),
    "call_later(None)": (TypeError, lambda loop: loop.call_later(None, print)),
    "call_later('1')": (TypeError, lambda loop: loop.call_later("1", print)),
    "call_at(None)": (TypeError, lambda loop: loop.call_at(None, print)),
    "create_task()": (TypeError, lambda loop: loop.create_task()),
    "create_task(None)": (TypeError, lambda loop: loop.create_task(None)),
    "create_task(function)": (TypeError, lambda loop: loop.create_task(nothing)),
    "create_task(generator)": (TypeError, lambda loop: loop.create_task(generator())),
    "create_task(future)": (TypeError, lambda loop: loop.create_task(loop.create_future())),
    "create_future(1)": (TypeError, lambda loop: loop.create_future(1)),
    "set_task_factory(1)": (TypeError, lambda loop: loop.set_task_factory(1)),
    "set_exception_handler(1)": (TypeError, lambda loop: loop.set_exception_handler(1)),
    "run_until_complete()": (TypeError, lambda loop: loop.run_until_complete()),
    "run_until_complete(None)": (TypeError, lambda loop: loop.run_until_complete(None)),
    "run_until_complete(1)": (TypeError, lambda loop: loop.run_until_complete(1)),
    "set_default_executor(1)": (TypeError, lambda loop: loop.set_default_executor(1)),
    "run_in_executor(1, print)": (AttributeError, while_running(lambda loop: loop.run_in_executor(1, print))),
    "add_signal_handler('1')": (TypeError, lambda loop: loop.add_signal_handler("1", print)),
    "add_signal_handler(0)": (ValueError, lambda loop: loop.add_signal_handler(0, print)),
    "add_signal_handler(1000)": (ValueError, lambda loop: loop.add_signal_handler(1000, print)),
    "add_signal_handler(SIGKILL)": (RuntimeError, lambda loop: loop.add_signal_handler(9, print)),
    "add_signal_handler(coroutine function)": (TypeError, lambda loop: loop.add_signal_handler(10, nothing)),
    "remove_signal_handler('1')": (TypeError, lambda loop: loop.remove_signal_handler("1")),
    "add_reader()": (TypeError, lambda loop: loop.add_reader()),
    "add_reader(0)": (TypeError, lambda loop: loop.add_reader(0)),
    "add_reader('0')": (ValueError, lambda loop: loop.add_reader("0", print)),
    "add_reader(None)": (ValueError, lambda loop: loop.add_reader(None, print)),
    "add_reader(-1)": (ValueError, lambda loop: loop.add_reader(-1, print)),
    "add_reader(1.5)": (ValueError, lambda loop: loop.add_reader(1.5, print)),
    "add_reader(closed)": (OSError, lambda loop: loop.add_reader(100_000, print)),
    "add_writer(-1)": (ValueError, lambda loop: loop.add_writer(-1, print)),
    "remove_reader(-1)": (ValueError, lambda loop: loop.remove_reader(-1)),
    "remove_reader('0')": (ValueError, lambda loop: loop.remove_reader("0")),
    "remove_writer(None)": (ValueError, lambda loop: loop.remove_writer(None)),
    "run_forever(1)": (TypeError, lambda loop: loop.run_forever(1)),
    "time(1)": (TypeError, lambda loop: loop.time(1)),
    "Future(loop=1)": (AttributeError, lambda loop: asyncio.Future(loop=1).set_result(1)),
    "gather of another loop": (ValueError, while_running(lambda loop: gather_other_loop(loop))),
}

SOCKETS: dict[str, tuple[type[BaseException], Call]] = {
    "sock_recv('0')": (AttributeError, coroutine_case(lambda loop: loop.sock_recv("0", 1))),
    "sock_recv(None)": (AttributeError, coroutine_case(lambda loop: loop.sock_recv(None, 1))),
    "sock_recv(n='1')": (TypeError, async_pair(lambda loop, one, other: loop.sock_recv(one, "1"))),
    "sock_recv(n=-1)": (ValueError, async_pair(lambda loop, one, other: loop.sock_recv(one, -1))),
    "sock_recv_into(bytes)": (TypeError, async_pair(lambda loop, one, other: loop.sock_recv_into(one, b"12"))),
    "sock_recv_into(1)": (TypeError, async_pair(lambda loop, one, other: loop.sock_recv_into(one, 1))),
    "sock_recvfrom(-1)": (ValueError, async_pair(lambda loop, one, other: loop.sock_recvfrom(one, -1))),
    "sock_recvfrom_into(too much)": (
        ValueError,
        async_pair(lambda loop, one, other: loop.sock_recvfrom_into(one, bytearray(2), 3)),
    ),
    "sock_sendall(text)": (TypeError, async_pair(lambda loop, one, other: loop.sock_sendall(one, "text"))),
    "sock_sendall(None)": (TypeError, async_pair(lambda loop, one, other: loop.sock_sendall(one, None))),
    "sock_sendto(text)": (TypeError, async_pair(lambda loop, one, other: loop.sock_sendto(one, "text", None))),
    "sock_accept(no listener)": (OSError, async_pair(lambda loop, one, other: loop.sock_accept(one))),
    "sock_connect(None)": (TypeError, async_pair(lambda loop, one, other: loop.sock_connect(one, None))),
    "sock_connect(1)": (TypeError, async_pair(lambda loop, one, other: loop.sock_connect(one, 1))),
    "sock_connect(absent)": (OSError, async_pair(lambda loop, one, other: loop.sock_connect(one, "/nowhere/x"))),
    "sock_connect(refused)": (OSError, lambda loop: connect_refused(loop)),
    "sock_connect(bad port)": (OverflowError, lambda loop: connect_tcp(loop, ("127.0.0.1", 70_000))),
    "sock_connect(number)": (TypeError, lambda loop: connect_tcp(loop, 1)),
    "sock_connect(list)": (OSError, lambda loop: connect_tcp(loop, ["127.0.0.1", 1])),
    "sock_connect(bad address)": (ValueError, lambda loop: connect_tcp(loop, ("127.0.0.1",))),
    "sock_recv(closed)": (OSError, async_pair(lambda loop, one, other: (one.close(), loop.sock_recv(one, 1))[1])),
    "sock_sendall(closed)": (OSError, async_pair(lambda loop, one, other: (one.close(), loop.sock_sendall(one, b"1"))[1])),
    "sock_sendall(broken)": (OSError, async_pair(lambda loop, one, other: (other.close(), loop.sock_sendall(one, b"1"))[1])),
    "sock_recv(used)": (RuntimeError, with_transport(lambda loop, transport, sock: loop.sock_recv(sock, 1))),
    "sock_recv_into(used)": (RuntimeError, with_transport(lambda loop, transport, sock: loop.sock_recv_into(sock, bytearray(1)))),
    "sock_accept(used)": (OSError, with_transport(lambda loop, transport, sock: loop.sock_accept(sock))),
    "add_reader(used)": (RuntimeError, with_transport(lambda loop, transport, sock: loop.add_reader(sock, print))),
    "add_writer(used)": (RuntimeError, with_transport(lambda loop, transport, sock: loop.add_writer(sock.fileno(), print))),
    "remove_reader(used)": (RuntimeError, with_transport(lambda loop, transport, sock: loop.remove_reader(sock))),
    "remove_writer(used)": (RuntimeError, with_transport(lambda loop, transport, sock: loop.remove_writer(sock))),
}

CONNECTIONS: dict[str, tuple[type[BaseException], Call]] = {
    "create_connection()": (ValueError, coroutine_case(lambda loop: loop.create_connection(asyncio.Protocol))),
    "create_connection(host and sock)": (
        ValueError,
        async_pair(lambda loop, one, other: loop.create_connection(asyncio.Protocol, "localhost", 1, sock=one)),
    ),
    "create_connection(server_hostname)": (
        ValueError,
        coroutine_case(lambda loop: loop.create_connection(asyncio.Protocol, "127.0.0.1", 1, server_hostname="x")),
    ),
    "create_connection(datagram)": (ValueError, lambda loop: connect_datagram(loop)),
    "create_connection(refused)": (
        ConnectionRefusedError,
        coroutine_case(lambda loop: loop.create_connection(asyncio.Protocol, "127.0.0.1", 1)),
    ),
    "create_connection(bad local_addr)": (
        OSError,
        coroutine_case(lambda loop: loop.create_connection(asyncio.Protocol, "127.0.0.1", 1, local_addr=("192.0.2.1", 0))),
    ),
    "create_connection(factory raises)": (
        ZeroDivisionError,
        async_pair(lambda loop, one, other: loop.create_connection(lambda: 1 / 0, sock=one)),
    ),
    "create_server()": (ValueError, coroutine_case(lambda loop: loop.create_server(asyncio.Protocol))),
    "create_server(host and sock)": (
        ValueError,
        async_pair(lambda loop, one, other: loop.create_server(asyncio.Protocol, "127.0.0.1", sock=one)),
    ),
    "create_server(bad ssl)": (
        TypeError,
        coroutine_case(lambda loop: loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=True)),
    ),
    "create_server(in use)": (OSError, lambda loop: serve_twice(loop)),
    "create_server(not ours)": (
        OSError,
        coroutine_case(lambda loop: loop.create_server(asyncio.Protocol, "192.0.2.1", 0)),
    ),
    "create_server(bad port)": (
        (OverflowError, OSError),
        coroutine_case(lambda loop: loop.create_server(asyncio.Protocol, "127.0.0.1", 70_000)),
    ),
    "create_unix_connection()": (ValueError, coroutine_case(lambda loop: loop.create_unix_connection(asyncio.Protocol))),
    "create_unix_connection(absent)": (
        FileNotFoundError,
        coroutine_case(lambda loop: loop.create_unix_connection(asyncio.Protocol, "/nowhere/x")),
    ),
    "create_unix_server()": (ValueError, coroutine_case(lambda loop: loop.create_unix_server(asyncio.Protocol))),
    "create_unix_server(no folder)": (
        OSError,
        coroutine_case(lambda loop: loop.create_unix_server(asyncio.Protocol, "/nowhere/x")),
    ),
    "connect_accepted_socket(datagram)": (ValueError, lambda loop: accept_datagram(loop)),
    "getaddrinfo(bad host)": (
        socket.gaierror,
        coroutine_case(lambda loop: loop.getaddrinfo("127.0.0.1", 1, family=socket.AF_INET6, flags=socket.AI_NUMERICHOST)),
    ),
    "getaddrinfo(1)": (TypeError, coroutine_case(lambda loop: loop.getaddrinfo(1, 1))),
    "getnameinfo(1)": (TypeError, coroutine_case(lambda loop: loop.getnameinfo(1))),
    "getnameinfo(name)": (socket.gaierror, coroutine_case(lambda loop: loop.getnameinfo(("x y", 1)))),
}

TRANSPORTS: dict[str, tuple[type[BaseException], Call]] = {
    "write(text)": (TypeError, with_transport(lambda loop, transport, sock: transport.write("text"))),
    "write(None)": (TypeError, with_transport(lambda loop, transport, sock: transport.write(None))),
    "write()": (TypeError, with_transport(lambda loop, transport, sock: transport.write())),
    "write after write_eof": (
        RuntimeError,
        with_transport(lambda loop, transport, sock: (transport.write_eof(), transport.write(b"1"))),
    ),
    "writelines(1)": (TypeError, with_transport(lambda loop, transport, sock: transport.writelines(1))),
    "writelines([text])": (TypeError, with_transport(lambda loop, transport, sock: transport.writelines(["text"]))),
    "set_write_buffer_limits(low > high)": (
        ValueError,
        with_transport(lambda loop, transport, sock: transport.set_write_buffer_limits(1, 2)),
    ),
    "set_write_buffer_limits(text)": (
        TypeError,
        with_transport(lambda loop, transport, sock: transport.set_write_buffer_limits("1")),
    ),
    "set_write_buffer_limits(-1)": (
        ValueError,
        with_transport(lambda loop, transport, sock: transport.set_write_buffer_limits(-1)),
    ),
    "sendfile(closing)": (
        RuntimeError,
        with_transport(lambda loop, transport, sock: loop.sendfile(transport, None), closing=True),
    ),
    "start_tls(1)": (
        TypeError,
        with_transport(lambda loop, transport, sock: loop.start_tls(transport, asyncio.Protocol(), 1)),
    ),
}

CLOSED: dict[str, Call] = {
    "call_soon": lambda loop: loop.call_soon(print),
    "call_soon_threadsafe": lambda loop: loop.call_soon_threadsafe(print),
    "call_later": lambda loop: loop.call_later(1, print),
    "call_at": lambda loop: loop.call_at(1, print),
    "create_task": lambda loop: with_coroutine(loop.create_task),
    "run_forever": lambda loop: loop.run_forever(),
    "run_until_complete": lambda loop: with_coroutine(loop.run_until_complete),
    "run_in_executor": lambda loop: loop.run_in_executor(None, print),
    "add_reader": lambda loop: loop.add_reader(0, print),
    "add_writer": lambda loop: loop.add_writer(0, print),
    "add_signal_handler": lambda loop: loop.add_signal_handler(10, print),
    "getaddrinfo": lambda loop: loop.getaddrinfo("localhost", 1),
    "getaddrinfo(literal)": lambda loop: loop.getaddrinfo("127.0.0.1", 1),
    "getnameinfo": lambda loop: loop.getnameinfo(("127.0.0.1", 1)),
}

RUNNING: dict[str, Call] = {
    "run_forever": while_running(lambda loop: loop.run_forever()),
    "run_until_complete": while_running(lambda loop: with_coroutine(loop.run_until_complete)),
    "close": while_running(lambda loop: loop.close()),
    "another loop": while_running(lambda loop: run_another(type(loop))),
    "asyncio.run": while_running(lambda loop: with_coroutine(asyncio.run)),
}


def with_coroutine(call: Callable[[Any], Any]) -> Any:
    coroutine = nothing()
    try:
        return call(coroutine)
    finally:
        coroutine.close()


def run_another(factory: Callable[[], Loop]) -> None:
    with contextlib.closing(factory()) as another:
        with_coroutine(another.run_until_complete)


def gather_other_loop(loop: Loop) -> Any:
    with contextlib.closing(type(loop)()) as another:
        return asyncio.gather(loop.create_future(), another.create_future())


def connect_tcp(loop: Loop, address: Any) -> Any:
    with socket.socket() as sock:
        sock.setblocking(False)
        return coroutine_case(lambda loop: loop.sock_connect(sock, address))(loop)


def connect_refused(loop: Loop) -> Any:
    return connect_tcp(loop, ("127.0.0.1", 1))


def connect_datagram(loop: Loop) -> Any:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        return coroutine_case(lambda loop: loop.create_connection(asyncio.Protocol, sock=sock))(loop)


def accept_datagram(loop: Loop) -> Any:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        return coroutine_case(lambda loop: loop.connect_accepted_socket(asyncio.Protocol, sock))(loop)


def serve_twice(loop: Loop) -> Any:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        return coroutine_case(lambda loop: loop.create_server(asyncio.Protocol, *address))(loop)


# asyncio's words are Python's own about an operation inside the method (`'str' object has no attribute 'recv'`), or show
# a line of asyncio's own source; the exception is the same, and the words say what is wrong.
OWN_WORDS = {
    "wrong types: call_later('1')",
    "wrong types: create_task(future)",
    "sockets: sock_recv('0')",
    "sockets: sock_recv(None)",
}
# How Python and how its C functions say that arguments are missing or too many.
ARITY = r"missing \d+ required|takes (no|exactly|from|\d+) .*argument|unexpected keyword argument|missing required"


def outcome_on(name: str, debug: bool, call: Call) -> tuple[type[BaseException] | None, str, Any]:
    """The exception's type, message and error number; what differs from run to run is taken out of the message."""
    loop = FACTORIES[name]()
    loop.set_debug(debug)
    try:
        # What a refused coroutine never did is reported by its own tests; here it would only be noise.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            call(loop)
            gc.collect()
    except Exception as error:
        return type(error), comparable(str(error)), getattr(error, "errno", None)
    finally:
        if not loop.is_closed():
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
    return None, "", None


def comparable(message: str) -> str:
    """A message without what differs from run to run, and without the names of the loops' own classes."""
    if re.search(ARITY, message):
        return "wrong arguments"
    message = re.sub(r"0x[0-9a-f]+|127\.0\.0\.1', \d+|\bfd=\d+|descriptor \d+", "#", message)
    return re.sub(r"<(_Selector)?SocketTransport\b", "<transport", message)


ALL = {
    **{f"wrong types: {name}": case for name, case in WRONG_TYPES.items()},
    **{f"sockets: {name}": case for name, case in SOCKETS.items()},
    **{f"connections: {name}": case for name, case in CONNECTIONS.items()},
    **{f"transports: {name}": case for name, case in TRANSPORTS.items()},
    **{f"closed: {name}": (RuntimeError, closed(call)) for name, call in CLOSED.items()},
    **{f"running: {name}": (RuntimeError, call) for name, call in RUNNING.items()},
}


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("case", ALL)
def test_refused_as_asyncio_refuses(case: str, debug: bool) -> None:
    expected, call = ALL[case]
    oracle = outcome_on("asyncio", debug, call)
    assert oracle[0] is not None and issubclass(oracle[0], expected), oracle
    found = outcome_on("ioxide", debug, call)
    if case in OWN_WORDS:
        assert found[0] is oracle[0] and found[1]
    else:
        assert found == oracle
