"""The event loop: scheduling, time, threads and debug mode beyond what CPython's own tests ask.

Overridden methods are honoured, timers are never early, call_soon_threadsafe keeps the order of each thread, an idle loop
sleeps, and no thread exists that asyncio would not have. What it leaves to others: handles (test_handles.py), signals
(test_signals.py), exceptions out of callbacks (test_callback_errors.py), several loops at once (stress/test_many_loops.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import os
import signal
import socket
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Loop = asyncio.AbstractEventLoop


def spin(loop: Loop, seconds: float = 0.0) -> None:
    loop.run_until_complete(asyncio.sleep(seconds))


def test_a_subclassable_loop(loop: Loop) -> None:
    assert isinstance(loop, asyncio.AbstractEventLoop)
    loop.anything = 1  # type: ignore[attr-defined]
    assert vars(loop)["anything"] == 1

    class Named(type(loop)):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    with contextlib.closing(Named("mine")) as mine:
        assert mine.name == "mine"
        assert mine.run_until_complete(asyncio.sleep(0, "result")) == "result"


def test_a_closed_loop_is_collected(loop_factory: Callable[[], Loop]) -> None:
    loop = loop_factory()
    loop.itself = loop  # type: ignore[attr-defined]
    loop.call_later(60, loop.stop)
    spin(loop)
    loop.close()
    reference = weakref.ref(loop)
    del loop
    gc.collect()
    assert reference() is None


def test_an_unclosed_loop_warns(loop_factory: Callable[[], Loop]) -> None:
    loop = loop_factory()
    spin(loop)
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        del loop
        gc.collect()


def overridden(factory: Callable[[], Loop], where: str, name: str, method: Callable[..., Any]) -> Loop:
    """A new loop whose method is overridden on the instance, in a subclass, or on the class after the loop was made."""
    if where == "subclass":
        loop_class = type("Overriding", (probe_class(factory),), {name: method})
        return loop_class()  # type: ignore[no-any-return]
    loop_class = type("Plain", (probe_class(factory),), {})
    loop = loop_class()
    if where == "instance":
        setattr(loop, name, method.__get__(loop))
    else:
        setattr(loop_class, name, method)
    return loop  # type: ignore[no-any-return]


def probe_class(factory: Callable[[], Loop]) -> type[Loop]:
    loop = factory()
    loop.close()
    return type(loop)


PLACES = ["instance", "subclass", "class"]


@pytest.mark.parametrize("where", PLACES)
def test_overridden_call_soon(loop_factory: Callable[[], Loop], where: str) -> None:
    calls: list[Any] = []
    original = probe_class(loop_factory).call_soon

    def call_soon(self: Any, callback: Any, *arguments: Any, context: Any = None) -> Any:
        calls.append(callback)
        return original(self, callback, *arguments, context=context)

    def done(future: Any) -> None:
        finished.append(future)

    finished: list[Any] = []
    with contextlib.closing(overridden(loop_factory, where, "call_soon", call_soon)) as loop:
        calls.clear()
        future = loop.create_future()
        future.add_done_callback(done)
        future.set_result(1)
        assert done in calls, "a future schedules its callbacks through call_soon"
        calls.clear()
        task = loop.create_task(asyncio.sleep(0))
        assert len(calls) == 1, "a task schedules its first step through call_soon"
        loop.run_until_complete(task)
        assert len(calls) >= 3, "its second step, and the end of run_until_complete"
        assert finished == [future]


@pytest.mark.parametrize("where", PLACES)
def test_overridden_call_later_and_call_at(loop_factory: Callable[[], Loop], where: str) -> None:
    calls: list[float] = []
    original = probe_class(loop_factory).call_later
    original_at = probe_class(loop_factory).call_at

    def call_later(self: Any, delay: float, callback: Any, *arguments: Any, context: Any = None) -> Any:
        calls.append(delay)
        return original(self, delay, callback, *arguments, context=context)

    with contextlib.closing(overridden(loop_factory, where, "call_later", call_later)) as loop:
        spin(loop, 0.002)
        assert calls == [0.002]

    ats: list[float] = []

    def call_at(self: Any, when: float, callback: Any, *arguments: Any, context: Any = None) -> Any:
        ats.append(when)
        return original_at(self, when, callback, *arguments, context=context)

    with contextlib.closing(overridden(loop_factory, where, "call_at", call_at)) as loop:
        loop.call_later(0.001, loop.stop)
        loop.run_forever()
        assert len(ats) == 1, "call_later goes through call_at"


@pytest.mark.parametrize("where", PLACES)
def test_overridden_time(loop_factory: Callable[[], Loop], where: str) -> None:
    now = [1000.0]
    with contextlib.closing(overridden(loop_factory, where, "time", lambda self: now[0])) as loop:
        assert loop.time() == 1000.0
        order: list[str] = []
        loop.call_at(1060.0, order.append, "sixty")
        handle = loop.call_later(30, order.append, "thirty")
        assert handle.when() == 1030.0
        spin(loop)
        assert order == []
        now[0] = 1030.0
        spin(loop)
        assert order == ["thirty"]
        now[0] = 2000.0
        spin(loop)
        assert order == ["thirty", "sixty"]


def test_time_is_monotonic_time(loop: Loop) -> None:
    for _ in range(1000):
        before, now, after = time.monotonic(), loop.time(), time.monotonic()
        assert before <= now <= after


def test_timers_are_never_early(loop: Loop) -> None:
    early: list[tuple[float, float]] = []
    left = 600

    def fired(due: float) -> None:
        nonlocal left
        now = time.monotonic()
        if now < due - loop._clock_resolution:  # type: ignore[attr-defined]
            early.append((due, now))
        left -= 1
        if not left:
            loop.stop()

    start = loop.time()
    for index in range(left // 2):
        when = start + index * 0.000_731
        loop.call_at(when, fired, when)
        delay = index * 0.000_617
        loop.call_later(delay, fired, time.monotonic() + delay - 1e-6)
    loop.run_forever()
    assert early == []


def test_timers_fire_in_order(loop: Loop) -> None:
    fired: list[int] = []
    start = loop.time()
    delays = [(index * 7919) % 200 for index in range(200)]
    for delay in delays:
        loop.call_at(start + delay * 1e-4, fired.append, delay)
    loop.call_at(start + 0.03, loop.stop)
    loop.run_forever()
    assert fired == sorted(delays)


def test_what_is_scheduled_in_a_turn_waits_for_the_next(loop: Loop) -> None:
    order: list[str] = []

    def first() -> None:
        order.append("first")
        loop.call_soon(order.append, "scheduled by first")

    loop.call_soon(first)
    loop.call_soon(order.append, "second")
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert order == ["first", "second"]
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert order == ["first", "second", "scheduled by first"]


def test_threads_keep_their_order(loop: Loop) -> None:
    threads, calls = 16, 500
    got: dict[int, list[int]] = {number: [] for number in range(threads)}
    left = threads * calls
    start = threading.Barrier(threads)

    def receive(number: int, index: int) -> None:
        nonlocal left
        got[number].append(index)
        left -= 1
        if not left:
            loop.stop()

    def send(number: int) -> None:
        start.wait()
        for index in range(calls):
            loop.call_soon_threadsafe(receive, number, index)

    senders = [threading.Thread(target=send, args=(number,)) for number in range(threads)]
    for sender in senders:
        sender.start()
    loop.run_forever()
    for sender in senders:
        sender.join()
    assert got == {number: list(range(calls)) for number in range(threads)}


def test_call_soon_threadsafe_wakes_and_keeps_its_context(loop: Loop) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="default")
    got: list[str] = []

    def receive() -> None:
        got.append(variable.get())
        if len(got) == 2:
            loop.stop()

    def send() -> None:
        variable.set("of the thread")
        loop.call_soon_threadsafe(receive)
        context = contextvars.copy_context()
        context.run(variable.set, "given")
        loop.call_soon_threadsafe(receive, context=context)

    timer = threading.Timer(0.02, send)
    timer.start()
    loop.run_forever()
    timer.join()
    assert got == ["of the thread", "given"]
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.call_soon_threadsafe(receive)


def test_contexts_of_callbacks(loop: Loop) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    got: list[int] = []
    context = contextvars.copy_context()

    def change() -> None:
        variable.set(variable.get() + 1)
        got.append(variable.get())

    loop.call_soon(change, context=context)
    loop.call_soon(change, context=context)
    loop.call_soon(change)
    loop.call_later(0, change, context=context)
    spin(loop, 0.002)
    assert sorted(got) == [1, 1, 2, 3]
    assert variable.get() == 0 and context[variable] == 3


def voluntary_switches() -> int:
    for line in Path("/proc/thread-self/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches"):
            return int(line.split()[1])
    raise AssertionError("the kernel does not count switches")


def test_an_idle_loop_sleeps(loop: Loop) -> None:
    spin(loop)
    loop.call_later(60, loop.stop)
    loop.call_later(0.5, loop.stop)
    before, cpu = voluntary_switches(), time.thread_time()
    loop.run_forever()
    assert voluntary_switches() - before <= 5
    assert time.thread_time() - cpu < 0.1


def test_no_thread_that_was_not_asked_for(loop: Loop) -> None:
    before = set(os.listdir("/proc/self/task"))

    async def main() -> None:
        served = asyncio.Event()
        server = await asyncio.start_server(lambda reader, writer: (writer.close(), served.set())[0], "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.read() == b""
        await served.wait()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        assert set(os.listdir("/proc/self/task")) == before
        names = await loop.run_in_executor(None, lambda: threading.current_thread().name)
        assert names.startswith("asyncio_")

    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    assert [thread for thread in threading.enumerate() if thread.name.startswith("asyncio_")] == []


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
def test_leaving_and_going_on(loop: Loop, exception: type[BaseException]) -> None:
    def leave() -> None:
        raise exception("leaving")

    order: list[str] = []
    loop.call_soon(leave)
    loop.call_soon(order.append, "after")
    with pytest.raises(exception, match="leaving"):
        loop.run_forever()
    assert not loop.is_running() and asyncio._get_running_loop() is None
    spin(loop)
    assert order == ["after"]


def test_an_interrupt_while_waiting(loop: Loop) -> None:
    sender = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    sender.start()
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    sender.join()
    assert loop.run_until_complete(asyncio.sleep(0, "usable")) == "usable"


def test_nested_runs_are_refused(loop: Loop, loop_factory: Callable[[], Loop]) -> None:
    other = loop_factory()

    async def main() -> None:
        # Not run_forever: asyncio's of 3.12 and 3.13 takes itself for stopped after it has refused.
        with pytest.raises(RuntimeError, match="This event loop is already running"):
            loop.run_until_complete(loop.create_future())
        with pytest.raises(RuntimeError, match="Cannot run the event loop while another loop is running"):
            other.run_until_complete(other.create_future())
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            loop.close()
        assert asyncio.get_running_loop() is loop

    loop.run_until_complete(main())
    other.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        other.run_forever()


def test_stopped_before_the_future_is_done(loop: Loop) -> None:
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match="Event loop stopped before Future completed"):
        loop.run_until_complete(future)
    future.set_result(1)
    assert loop.run_until_complete(future) == 1


def test_slow_callbacks_are_logged(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.slow_callback_duration = 0.02  # type: ignore[attr-defined]
    loop.set_debug(True)
    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.call_soon(time.sleep, 0.03)
        loop.call_soon(time.sleep, 0.0)
        spin(loop)
    [message] = [record.getMessage() for record in caplog.records]
    assert message.startswith("Executing <Handle sleep(0.03) created at ")
    assert message.endswith(" seconds") and " took 0.03" in message


def test_slow_steps_are_logged(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    async def slow() -> None:
        time.sleep(0.03)

    loop.slow_callback_duration = 0.02  # type: ignore[attr-defined]
    loop.set_debug(True)
    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.run_until_complete(loop.create_task(slow(), name="slow one"))
    [message] = [record.getMessage() for record in caplog.records]
    assert message.startswith("Executing <Task finished name='slow one' coro=<test_slow_steps_are_logged.<locals>.slow() done")


def test_the_wrong_thread_is_noticed_in_debug_mode(loop: Loop) -> None:
    def use() -> list[str]:
        errors = []
        for call in (lambda: loop.call_soon(print), lambda: loop.call_later(1, print), lambda: loop.call_at(1, print)):
            with pytest.raises(RuntimeError) as caught:
                call()
            errors.append(str(caught.value))
        return errors

    async def main() -> list[str]:
        return await loop.run_in_executor(None, use)

    loop.set_debug(True)
    text = "Non-thread-safe operation invoked on an event loop other than the current one"
    assert loop.run_until_complete(main()) == [text] * 3
    loop.run_until_complete(loop.shutdown_default_executor())


def test_never_awaited_coroutines_tell_their_origin_in_debug_mode(loop: Loop) -> None:
    async def forgotten() -> None:
        raise AssertionError("it is never awaited")

    async def main() -> None:
        forgotten()
        gc.collect()

    loop.set_debug(True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.run_until_complete(main())
    [message] = [str(warning.message) for warning in caught if warning.category is RuntimeWarning]
    assert message.startswith("coroutine 'test_never_awaited_coroutines")
    assert "was never awaited\nCoroutine created at (most recent call last)" in message
    assert "    forgotten()" in message


def test_times_that_are_no_numbers(loop_factory: Callable[[], Loop]) -> None:
    """call_later() fails at once; call_at() where it is compared, or when the loop looks at its timers."""
    with contextlib.closing(loop_factory()) as loop:
        with pytest.raises(TypeError, match=r"unsupported operand type\(s\) for \+: 'float' and 'str'"):
            loop.call_later("1", print)  # type: ignore[arg-type]
        handle = loop.call_at("1", print)  # type: ignore[arg-type]
        assert handle.when() == "1"
        with pytest.raises(TypeError, match=r"unsupported operand type\(s\) for -: 'str' and 'float'"):
            loop.run_forever()
        handle.cancel()
        spin(loop)
        loop.call_later(60, print)
        with pytest.raises(TypeError, match="'<' not supported between instances of 'str' and 'float'"):
            loop.call_at("1", print)  # type: ignore[arg-type]


def test_a_reader_that_removes_itself_and_fails(loop: Loop) -> None:
    reports: list[Any] = []
    loop.set_exception_handler(lambda loop, report: reports.append(report["message"]))
    one, other = socket.socketpair()

    def broken() -> None:
        loop.remove_reader(one)
        raise LookupError

    with one, other:
        one.setblocking(False)
        loop.add_reader(one, broken)
        other.send(b"x")
        while not reports:
            spin(loop)
    assert reports == ["Exception in callback None()"]


def test_a_busy_loop_looks_at_its_first_descriptor(loop: Loop) -> None:
    near, far = socket.socketpair()

    async def main() -> None:
        heard = loop.create_future()
        await asyncio.sleep(0.001)  # the loop has waited without any descriptor
        loop.add_reader(near, heard.set_result, None)
        far.send(b"x")
        async with asyncio.timeout(20):
            while not heard.done():
                await asyncio.sleep(0)
                if loop.time() > deadline:
                    raise AssertionError("never looked")
        loop.remove_reader(near)

    deadline = loop.time() + 10
    with near, far:
        loop.run_until_complete(main())
