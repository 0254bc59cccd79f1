"""Exceptions out of callbacks, protocol methods, factories and handlers: asyncio's log lines, and the loop goes on.

Each case runs on both loops and asyncio's records are the oracle: level, message and exception of every line, also what
the exception handler was given. What it leaves to others: exceptions that a method raises to its caller (test_bad_input.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import re
import resource
import signal
import socket
import traceback
import warnings
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

import ioxide

Loop = asyncio.AbstractEventLoop
Case = Callable[[Loop], Coroutine[Any, Any, None]]
FACTORIES: dict[str, Callable[[], Loop]] = {"asyncio": asyncio.SelectorEventLoop, "ioxide": ioxide.new_event_loop}
CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


def broken(*arguments: Any) -> Any:
    raise LookupError("broken")


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0.001)


@case
async def call_soon(loop: Loop) -> None:
    loop.call_soon(broken)
    loop.call_soon(broken, 1, "two")
    await turns()


@case
async def call_soon_of_what_cannot_be_called(loop: Loop) -> None:
    if not loop.get_debug():
        loop.call_soon(1)
    await turns()


@case
async def call_soon_with_wrong_arguments(loop: Loop) -> None:
    loop.call_soon(turns.__class__, 1)
    await turns()


@case
async def call_soon_threadsafe(loop: Loop) -> None:
    loop.call_soon_threadsafe(broken)
    await turns()


@case
async def call_later(loop: Loop) -> None:
    loop.call_later(0.001, broken)
    loop.call_at(loop.time(), broken)
    await turns()


@case
async def cancelled_handles(loop: Loop) -> None:
    """They never run; cancelling again, or after they ran, changes nothing."""
    handles = [loop.call_soon(broken), loop.call_later(0, broken), loop.call_soon_threadsafe(broken)]
    ran = loop.call_soon(int)
    for handle in handles * 2:
        handle.cancel()
    await turns()
    ran.cancel()
    assert [handle.cancelled() for handle in [*handles, ran]] == [True] * 4


@case
async def readers_and_writers(loop: Loop) -> None:
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)

        def reader() -> None:
            one.recv(1)
            broken()

        def writer() -> None:
            # Not before it raises: asyncio forgets the callback of a cancelled handle, and logs None() in its place.
            loop.call_soon(loop.remove_writer, one)
            broken()

        loop.add_reader(one, reader)
        loop.add_writer(one, writer)
        other.send(b"x")
        await turns()
        loop.remove_reader(one)


@case
async def signal_handlers(loop: Loop) -> None:
    loop.add_signal_handler(signal.SIGUSR1, broken)
    os.kill(os.getpid(), signal.SIGUSR1)
    await turns()
    loop.remove_signal_handler(signal.SIGUSR1)


@case
async def done_callbacks(loop: Loop) -> None:
    future = loop.create_future()
    future.add_done_callback(broken)
    future.set_result(1)
    task = loop.create_task(asyncio.sleep(0))
    task.add_done_callback(broken)
    await turns()


@case
async def exceptions_nobody_asked_for(loop: Loop) -> None:
    async def fails() -> None:
        broken()

    for _ in range(3):  # an object whose memory was used before is reported like the first one
        loop.create_future().set_exception(LookupError("broken"))
        loop.create_task(fails())
        await turns()
        gc.collect()


@case
async def pending_tasks_nobody_holds(loop: Loop) -> None:
    async def waits() -> None:
        await loop.create_future()

    for _ in range(3):
        loop.create_task(waits(), name="forgotten")
        await turns()
        gc.collect()


@case
async def exception_handlers(loop: Loop) -> None:
    loop.set_exception_handler(broken)
    loop.call_soon(broken)
    await turns()
    loop.set_exception_handler(None)
    loop.call_exception_handler({"message": "told", "future": 1, "extra": "two"})
    loop.call_exception_handler({})


@case
async def tasks_that_yield_nonsense(loop: Loop) -> None:
    class Nonsense:
        def __await__(self) -> Iterator[Any]:
            yield self.value

        def __init__(self, value: Any) -> None:
            self.value = value

    async def waits_for(value: Any) -> None:
        await Nonsense(value)

    for value in (1, "text", object):
        try:
            await loop.create_task(waits_for(value))
        except RuntimeError as error:
            logging.getLogger("asyncio").error("%s", re.sub(r"<Task .*?>>?", "#", str(error)))


class Broken(asyncio.Protocol):
    """Raises from one method, and does its work in the others."""

    def __init__(self, method: str = "") -> None:
        self.method = method
        self.lost = asyncio.get_running_loop().create_future()

    def break_in(self, method: str) -> None:
        if method == self.method:
            broken()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.break_in("connection_made")

    def data_received(self, data: bytes) -> None:
        self.break_in("data_received")

    def eof_received(self) -> None:
        self.break_in("eof_received")

    def pause_writing(self) -> None:
        self.break_in("pause_writing")

    def resume_writing(self) -> None:
        self.break_in("resume_writing")

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self.lost.done():
            self.lost.set_result(repr(exc))
        self.break_in("connection_lost")


class BrokenBuffered(asyncio.BufferedProtocol):
    """A buffered protocol that raises from one method, or hands out a buffer that is none."""

    def __init__(self, buffer: Any = None, method: str = "") -> None:
        self.buffer, self.method = buffer, method
        self.lost = asyncio.get_running_loop().create_future()

    def get_buffer(self, size_hint: int) -> Any:
        if self.method == "get_buffer":
            broken()
        return self.buffer

    def buffer_updated(self, count: int) -> None:
        broken()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(repr(exc))


async def talk_to(loop: Loop, protocol: Any) -> None:
    """Sends a word and an end to the protocol, has it write much, and notes what its connection was lost with."""
    one, other = socket.socketpair()
    with other:
        other.setblocking(False)
        transport, _ = await loop.create_connection(lambda: protocol, sock=one)
        await turns(2)
        with contextlib.suppress(OSError):
            transport.write(bytes(2_000_000))
            with contextlib.suppress(BlockingIOError):
                while other.recv(1_000_000):
                    await turns(1)
            other.send(b"word")
            await turns(2)
            other.shutdown(socket.SHUT_WR)
        await turns(2)
        transport.close()
        lost = await asyncio.wait_for(protocol.lost, 10)
        logging.getLogger("asyncio").error("lost with %s", lost)
        await turns(2)


def protocol_case(name: str, make: Callable[[], Any]) -> None:
    async def run(loop: Loop) -> None:
        await talk_to(loop, make())

    CASES[name] = run


METHODS = ["connection_made", "data_received", "eof_received", "pause_writing", "resume_writing", "connection_lost"]
for _method in METHODS:
    protocol_case(f"protocol.{_method}", lambda method=_method: Broken(method))
protocol_case("protocol.get_buffer", lambda: BrokenBuffered(method="get_buffer"))
protocol_case("protocol.get_buffer gives bytes", lambda: BrokenBuffered(b"bytes"))
protocol_case("protocol.get_buffer gives None", lambda: BrokenBuffered(None))
protocol_case("protocol.get_buffer gives no room", lambda: BrokenBuffered(bytearray()))
protocol_case("protocol.buffer_updated", lambda: BrokenBuffered(bytearray(10)))


@case
async def servers_factories(loop: Loop) -> None:
    """A factory that raises costs its connection, whose socket is left to the collector, and the server goes on."""
    server = await loop.create_server(broken, "127.0.0.1", 0)
    async with server:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            for _ in range(2):
                _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                await turns()
                writer.close()
                await turns()
            gc.collect()


@case
async def stream_callbacks(loop: Loop) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        broken()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        await turns()
        gc.collect()


@case
async def accept_without_descriptors(loop: Loop) -> None:
    """EMFILE: one line for each turn of the listener's, a second of rest, and then everybody is served."""
    server = await loop.create_server(Broken, "127.0.0.1", 0, backlog=3)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    asking = [socket.socket() for _ in range(3)]
    async with server:
        try:
            lowest_free = os.dup(0)
            os.close(lowest_free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
            begun = loop.time()
            for sock in asking:
                sock.setblocking(False)
                await loop.sock_connect(sock, server.sockets[0].getsockname())
            await turns(20)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for sock in asking:
            sock.shutdown(socket.SHUT_WR)
            # The server closes at the end of the stream: that it does says that the connection was accepted.
            assert await asyncio.wait_for(loop.sock_recv(sock, 1), 10) == b""
            sock.close()
        assert 0.9 < loop.time() - begun < 5
        await asyncio.sleep(0.1)  # the timers of its other tries


def comparable(text: str) -> str:
    """What differs from run to run, the stacks of debug mode, and the name of the transport's class are taken out."""
    text = "\n".join(line for line in text.splitlines() if not line.startswith("  ") and "(most recent call last)" not in line)
    text = re.sub(r"'source_traceback': \[.*?>\]", "#", text)
    text = re.sub(r"<Future finis\.\.\.[^>]*>", "<Future>", text)
    text = re.sub(r"0x[0-9a-f]+|127\.0\.0\.1', \d+|\b[fl]d=\d+|\bwhen=[\d.]+|\bcreated at [^ >]+|Task-\d+", "#", text)
    return re.sub(r"\b_SelectorSoc(ketTransport\b|(?=\.\.\.))|\bSocketTransp(ort\b|(?=\.\.\.))", "#", text)


def forget_frames(exception: BaseException | None) -> None:
    """What the frames hold would live as long as pytest keeps the record: the sockets of servers_factories do."""
    if exception is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            traceback.clear_frames(exception.__traceback__)
            exception.__traceback__ = None
            gc.collect()


def records_of(name: str, debug: bool, function: Case, caplog: pytest.LogCaptureFixture) -> list[tuple[Any, ...]]:
    """Each line of asyncio's logger: level, first line of the message, exception, and the lines about the context."""
    caplog.clear()
    with asyncio.Runner(debug=debug, loop_factory=FACTORIES[name]) as runner:
        runner.get_loop().slow_callback_duration = 60  # how slow the machine is belongs to no test
        runner.run(function(runner.get_loop()))
        gc.collect()
    lines = []
    for record in caplog.records:
        assert record.name == "asyncio"
        if record.levelno < logging.WARNING:
            continue
        exception = record.exc_info[1] if record.exc_info else None
        forget_frames(exception)
        line = record.levelname, comparable(record.getMessage()), repr(exception)
        # How often a listener tries to accept in one turn depends on the Python version.
        if function is not accept_without_descriptors or line not in lines:
            lines.append(line)
    return lines


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("name", CASES)
def test_logged_as_asyncio_logs(name: str, debug: bool, caplog: pytest.LogCaptureFixture) -> None:
    oracle = records_of("asyncio", debug, CASES[name], caplog)
    found = records_of("ioxide", debug, CASES[name], caplog)
    assert found == oracle
    quiet = {"cancelled_handles", "call_soon_of_what_cannot_be_called" if debug else "servers_factories"}
    assert bool(oracle) == (name not in quiet)


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["callback", "timer", "task", "reader", "protocol"])
def test_leaving_the_loop(loop: Loop, where: str, exception: type[BaseException]) -> None:
    """These two leave run_forever(), and the loop can be run again."""

    def leave(*arguments: Any) -> None:
        raise exception("now")

    async def leave_later() -> None:
        await asyncio.sleep(0)
        leave()

    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        if where == "callback":
            loop.call_soon(leave)
        elif where == "timer":
            loop.call_later(0.001, leave)
        elif where == "task":
            task = loop.create_task(leave_later())
        elif where == "reader":
            loop.add_reader(one, leave)
        else:
            protocol = type("Leaving", (asyncio.Protocol,), {"data_received": leave})
            transport, _ = loop.run_until_complete(loop.create_connection(protocol, sock=one))
        other.send(b"x")
        with pytest.raises(exception, match=r"^now$"):
            loop.run_forever()
        if where == "task":
            assert isinstance(task.exception(), exception)
        elif where == "reader":
            loop.remove_reader(one)
        elif where == "protocol":
            transport.abort()
            loop.run_until_complete(asyncio.sleep(0))
        assert loop.run_until_complete(asyncio.sleep(0.001, "again")) == "again"
