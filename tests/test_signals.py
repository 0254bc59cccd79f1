"""add_signal_handler and remove_signal_handler: what is refused, set and given back, and signals at every moment.

What it leaves to others: SIGINT under Runner (test_runners.py), signals and processes (test_subprocess.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

Loop = asyncio.AbstractEventLoop


@pytest.fixture(autouse=True)
def signals_are_given_back() -> Iterator[None]:
    """After the loop of a test is closed, nothing of its handlers is left."""
    yield
    previous = signal.set_wakeup_fd(-1)
    assert previous == -1
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        assert signal.getsignal(number) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def run_until(loop: Loop, condition: Callable[[], bool]) -> None:
    async def wait() -> None:
        while not condition():
            await asyncio.sleep(0.001)

    loop.run_until_complete(asyncio.wait_for(wait(), 20))


def test_a_handler_gets_its_arguments_and_context(loop: Loop) -> None:
    got: list[Any] = []
    loop.add_signal_handler(signal.SIGUSR1, lambda *arguments: got.append(arguments), 1, "two")
    signal.raise_signal(signal.SIGUSR1)
    run_until(loop, lambda: bool(got))
    assert got == [(1, "two")]
    handle = loop._signal_handlers[signal.SIGUSR1]  # type: ignore[attr-defined]
    assert isinstance(handle, asyncio.Handle)
    loop.close()


def test_a_second_handler_takes_the_place_of_the_first(loop: Loop) -> None:
    got: list[str] = []
    loop.add_signal_handler(signal.SIGUSR1, got.append, "first")
    loop.add_signal_handler(signal.SIGUSR1, got.append, "second")
    signal.raise_signal(signal.SIGUSR1)
    run_until(loop, lambda: bool(got))
    assert got == ["second"]
    assert loop.remove_signal_handler(signal.SIGUSR1)
    assert not loop.remove_signal_handler(signal.SIGUSR1)


def test_bad_arguments(loop: Loop) -> None:
    for method in (loop.add_signal_handler, loop.remove_signal_handler):
        rest = (print,) if method == loop.add_signal_handler else ()
        with pytest.raises(TypeError, match="sig must be an int, not 'USR1'"):
            method("USR1", *rest)
        with pytest.raises(ValueError, match="invalid signal number 0"):
            method(0, *rest)
        with pytest.raises(ValueError, match="invalid signal number 4000"):
            method(4000, *rest)
    for number in (signal.SIGKILL, signal.SIGSTOP):
        with pytest.raises(RuntimeError, match=f"sig {number} cannot be caught"):
            loop.add_signal_handler(number, print)
    with pytest.raises(TypeError, match=r"coroutines cannot be used with add_signal_handler\(\)"):
        loop.add_signal_handler(signal.SIGUSR1, asyncio.sleep)
    assert not loop._signal_handlers  # type: ignore[attr-defined]
    assert signal.set_wakeup_fd(-1) == -1


def test_a_closed_loop_takes_no_handler(loop: Loop) -> None:
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.add_signal_handler(signal.SIGUSR1, print)
    assert loop.remove_signal_handler(signal.SIGUSR1) is False


def test_another_thread_takes_no_handler(loop: Loop) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            loop.add_signal_handler(signal.SIGUSR1, print)
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "set_wakeup_fd only works in main thread" in str(errors[0])
    assert isinstance(errors[0].__context__, ValueError)


def test_close_removes_all_handlers(loop: Loop) -> None:
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT):
        loop.add_signal_handler(number, print)
    assert signal.getsignal(signal.SIGUSR1) is not signal.SIG_DFL
    loop.close()
    assert not loop._signal_handlers  # type: ignore[attr-defined]


def test_the_wakeup_descriptor(loop: Loop) -> None:
    loop.add_signal_handler(signal.SIGUSR1, print)
    descriptor = loop._csock.fileno()  # type: ignore[attr-defined]
    assert signal.set_wakeup_fd(descriptor) == descriptor
    loop.add_signal_handler(signal.SIGUSR2, print)
    loop.remove_signal_handler(signal.SIGUSR1)
    assert signal.set_wakeup_fd(descriptor) == descriptor
    loop.remove_signal_handler(signal.SIGUSR2)
    assert signal.set_wakeup_fd(-1) == -1


def test_a_burst_of_signals_while_callbacks_run(loop: Loop) -> None:
    """Each signal that Python sees is a call, in the order of arrival; the loop is busy all the time."""
    got: list[int] = []
    busy = True

    def spin() -> None:
        if busy:
            loop.call_soon(spin)

    numbers = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP] * 20
    for number in set(numbers):
        loop.add_signal_handler(number, got.append, number)
    loop.call_soon(spin)

    async def main() -> None:
        for count, number in enumerate(numbers, 1):
            os.kill(os.getpid(), number)
            while len(got) < count:
                await asyncio.sleep(0)

    loop.run_until_complete(asyncio.wait_for(main(), 20))
    busy = False
    assert got == numbers


def test_a_sleeping_loop_wakes(loop: Loop) -> None:
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    sender = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    sender.start()
    watchdog = loop.call_later(20, loop.stop)
    loop.run_forever()
    sender.join()
    assert loop.time() < watchdog.when() - 5
    watchdog.cancel()


def test_a_handler_that_raises_is_reported(loop: Loop) -> None:
    reports: list[Any] = []
    loop.set_exception_handler(lambda loop, report: reports.append(report))
    loop.add_signal_handler(signal.SIGUSR1, divmod, 1, 0)
    signal.raise_signal(signal.SIGUSR1)
    run_until(loop, lambda: bool(reports))
    assert "Exception in callback divmod(" in reports[0]["message"]


def test_a_cancelled_handler_is_removed(loop: Loop) -> None:
    loop.add_signal_handler(signal.SIGUSR1, print)
    loop._signal_handlers[signal.SIGUSR1].cancel()  # type: ignore[attr-defined]
    signal.raise_signal(signal.SIGUSR1)
    run_until(loop, lambda: signal.SIGUSR1 not in loop._signal_handlers)  # type: ignore[attr-defined]
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_the_last_of_two_loops_gets_the_signals(loop: Loop, loop_factory: Callable[[], Loop]) -> None:
    got: list[str] = []
    loop.add_signal_handler(signal.SIGUSR1, got.append, "first")
    with contextlib.closing(loop_factory()) as other:
        other.add_signal_handler(signal.SIGUSR2, got.append, "other")
        signal.raise_signal(signal.SIGUSR2)
        run_until(other, lambda: bool(got))
        assert got == ["other"]
    # The other one's end took the wake-ups: adding a handler anew brings them back.
    loop.add_signal_handler(signal.SIGUSR1, got.append, "again")
    signal.raise_signal(signal.SIGUSR1)
    run_until(loop, lambda: len(got) > 1)
    assert got == ["other", "again"]


def test_overridden_methods_are_honoured(loop_factory: Callable[[], Loop]) -> None:
    probe = loop_factory()
    probe.close()
    seen: list[int] = []

    class Watching(type(probe)):  # type: ignore[misc]
        def _handle_signal(self, number: int) -> None:
            seen.append(number)
            super()._handle_signal(number)

        def remove_signal_handler(self, number: int) -> bool:
            seen.append(-number)
            return super().remove_signal_handler(number)  # type: ignore[no-any-return]

    got: list[str] = []
    with contextlib.closing(Watching()) as loop:
        loop.add_signal_handler(signal.SIGUSR1, got.append, "call")
        signal.raise_signal(signal.SIGUSR1)
        run_until(loop, lambda: bool(got))
    assert seen == [signal.SIGUSR1, -signal.SIGUSR1]


def test_a_signal_between_two_runs_is_not_lost(loop: Loop) -> None:
    got: list[int] = []

    def caught(number: int) -> None:
        got.append(number)
        loop.stop()

    loop.add_signal_handler(signal.SIGUSR1, caught, signal.SIGUSR1)
    loop.run_until_complete(asyncio.sleep(0))
    signal.raise_signal(signal.SIGUSR1)
    assert got == []
    watchdog = loop.call_later(5, loop.stop)
    loop.run_forever()
    watchdog.cancel()
    assert got == [signal.SIGUSR1]
    assert loop.remove_signal_handler(signal.SIGUSR1) is True
    assert loop.remove_signal_handler(signal.SIGUSR1) is False
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_a_python_signal_handler_runs_while_the_loop_sleeps(loop: Loop) -> None:
    got: list[float] = []
    previous = signal.signal(signal.SIGUSR2, lambda number, frame: got.append(time.monotonic()))
    sender = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR2))
    sender.start()
    start = time.monotonic()
    try:
        loop.run_until_complete(asyncio.sleep(0.6))
    finally:
        signal.signal(signal.SIGUSR2, previous)
        sender.join()
    assert len(got) == 1 and got[0] - start < 0.5
