"""run_in_executor and the default executor: results, exceptions and cancellation both ways, shutdown with and without a timeout.

What it leaves to others: asyncio.to_thread (CPython's test_threads), name look-ups (their pool is ioxide's own).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

Loop = asyncio.AbstractEventLoop
Run = Callable[..., Any]


class Inline(concurrent.futures.Executor):
    """Calls at once, in the thread of the caller."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            future.set_result(function(*arguments, **keywords))
        except Exception as error:
            future.set_exception(error)
        return future


class Manual(concurrent.futures.Executor):
    """Hands out futures that the test finishes itself."""

    def __init__(self) -> None:
        self.futures: list[concurrent.futures.Future[Any]] = []

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> concurrent.futures.Future[Any]:
        self.futures.append(concurrent.futures.Future())
        return self.futures[-1]


def test_results_and_exceptions(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(None, divmod, 7, 2)
        assert asyncio.isfuture(future) and future.get_loop() is loop
        assert await future == (3, 1)
        with pytest.raises(ZeroDivisionError) as caught:
            await loop.run_in_executor(None, divmod, 1, 0)
        assert caught.value.__traceback__ is not None
        assert await loop.run_in_executor(executor=None, func=int) == 0  # type: ignore[call-arg]

    run(main())


def test_the_default_executor_is_a_thread_pool(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        assert loop._default_executor is None
        names = await loop.run_in_executor(None, lambda: threading.current_thread().name)
        assert names == "asyncio_0"
        assert type(loop._default_executor) is concurrent.futures.ThreadPoolExecutor

    run(main())


def test_many_at_once_keep_their_results(run: Run) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            return await asyncio.gather(*(loop.run_in_executor(pool, pow, index, 2) for index in range(500)))

    assert run(main()) == [index**2 for index in range(500)]


def test_an_executor_that_calls_at_once(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(Inline(), int, "12")
        # From 3.14 on the state is copied at once, before it goes through the loop.
        assert future.done() == ("_get_running_loop" in names_of_chain())
        assert await future == 12
        with pytest.raises(ValueError, match="invalid literal"):
            await loop.run_in_executor(Inline(), int, "twelve")

    run(main())


def names_of_chain() -> set[str]:
    """The names that the inner functions of asyncio's own chain use."""
    constants = asyncio.futures._chain_future.__code__.co_consts  # type: ignore[attr-defined]
    return {name for code in constants if hasattr(code, "co_names") for name in code.co_names}


def test_cancellation_goes_both_ways(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        manual = Manual()
        future = loop.run_in_executor(manual, print)
        future.cancel("enough")
        with pytest.raises(asyncio.CancelledError):
            await future
        await asyncio.sleep(0)
        assert manual.futures[0].cancelled()

        future = loop.run_in_executor(manual, print)
        manual.futures[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await future

    run(main())


def test_work_that_runs_is_not_stopped_by_cancellation(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        manual = Manual()
        future = loop.run_in_executor(manual, print)
        source = manual.futures[0]
        assert source.set_running_or_notify_cancel()
        future.cancel()
        await asyncio.wait([future])
        assert future.cancelled() and source.running()
        source.set_result("late")
        await asyncio.sleep(0)
        assert future.cancelled()

    run(main())


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        (concurrent.futures.CancelledError, asyncio.CancelledError),
        (concurrent.futures.InvalidStateError, asyncio.InvalidStateError),
        (TimeoutError, TimeoutError),
        (LookupError, LookupError),
    ],
)
def test_exceptions_of_executors_become_those_of_asyncio(
    run: Run, inner: type[BaseException], outer: type[BaseException]
) -> None:
    async def main() -> None:
        manual = Manual()
        future = asyncio.get_running_loop().run_in_executor(manual, print)
        manual.futures[0].set_exception(inner("text"))
        with pytest.raises(outer, match="text") as caught:
            await future
        assert type(caught.value) is outer

    run(main())


def test_a_result_after_the_loop_was_closed_is_dropped(loop: Loop) -> None:
    manual = Manual()
    future = loop.run_in_executor(manual, print)
    loop.close()
    manual.futures[0].set_result(1)
    assert not future.done()
    with pytest.raises(RuntimeError, match="closed"):
        loop.run_in_executor(None, print)


def test_a_future_that_somebody_else_finished_is_reported(loop: Loop) -> None:
    reports: list[Any] = []
    loop.set_exception_handler(lambda loop, report: reports.append(report))
    manual = Manual()
    future = loop.run_in_executor(manual, print)
    future.set_result("mine")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(manual.futures[0].set_result, "yours").result()
    loop.run_until_complete(asyncio.sleep(0))
    assert [type(report["exception"]) for report in reports] == [AssertionError]
    assert future.result() == "mine"


class Broken(concurrent.futures.Executor):
    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Any:
        return "no future"


def test_bad_executors_are_refused(loop: Loop) -> None:
    with pytest.raises(AssertionError, match=r"concurrent\.futures\.Future is expected, got 'no future'"):
        loop.run_in_executor(Broken(), print)
    with pytest.raises(TypeError, match="executor must be ThreadPoolExecutor instance"):
        loop.set_default_executor(Manual())  # type: ignore[arg-type]
    loop.set_debug(True)
    with pytest.raises(TypeError, match=r"a callable object was expected by run_in_executor\(\), got 1"):
        loop.run_in_executor(None, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"coroutines cannot be used with run_in_executor\(\)"):
        loop.run_in_executor(None, asyncio.sleep)


def test_an_executor_set_by_the_program_is_used_and_shut_down(loop: Loop) -> None:
    pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="mine")
    loop.set_default_executor(pool)
    name = loop.run_until_complete(loop.run_in_executor(None, lambda: threading.current_thread().name))
    assert name == "mine_0"
    loop.run_until_complete(loop.shutdown_default_executor())
    with pytest.raises(RuntimeError, match="Executor shutdown has been called"):
        loop.run_in_executor(None, print)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.submit(print)


def test_shutdown_without_an_executor(loop: Loop) -> None:
    loop.run_until_complete(loop.shutdown_default_executor())
    assert loop._executor_shutdown_called is True  # type: ignore[attr-defined]


def test_shutdown_waits_for_work(loop: Loop) -> None:
    gate = threading.Event()
    work = loop.run_in_executor(None, gate.wait, 20)
    loop.call_later(0.01, gate.set)
    loop.run_until_complete(loop.shutdown_default_executor())
    assert loop.run_until_complete(work) is True


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the timeout came with Python 3.12")
def test_shutdown_with_a_timeout(loop: Loop) -> None:
    """3.12.0 waits for the work and then for the helper thread only; later versions give up after the timeout."""
    gate = threading.Event()
    work = loop.run_in_executor(None, gate.wait, 20)
    ends_wait = "timeouts" in asyncio.BaseEventLoop.shutdown_default_executor.__code__.co_names
    if not ends_wait:
        gate.set()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.run_until_complete(loop.shutdown_default_executor(timeout=0.01 if ends_wait else 10))
    found = [str(warning.message) for warning in caught if warning.category is RuntimeWarning]
    assert found == ["The executor did not finishing joining its threads within 0.01 seconds."] * ends_wait
    gate.set()
    assert loop.run_until_complete(work) is True


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="3.11 has no timeout")
def test_shutdown_takes_no_timeout(loop: Loop) -> None:
    with pytest.raises(TypeError):
        loop.shutdown_default_executor(1)  # type: ignore[call-arg]


def test_a_shutdown_that_fails(loop: Loop) -> None:
    class Failing(concurrent.futures.ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            if wait:
                raise LookupError("no shutdown")

    loop.set_default_executor(Failing())
    with pytest.raises(LookupError, match="no shutdown"):
        loop.run_until_complete(loop.shutdown_default_executor())


def test_an_overridden_run_in_executor_is_honoured(loop_factory: Callable[[], Loop]) -> None:
    calls: list[Any] = []
    probe = loop_factory()
    probe.close()

    class Counting(type(probe)):  # type: ignore[misc]
        def run_in_executor(self, executor: Any, function: Any, *arguments: Any) -> Any:
            calls.append(function)
            return super().run_in_executor(executor, function, *arguments)

    with contextlib.closing(Counting()) as loop:

        async def main() -> int:
            return await asyncio.to_thread(len, "four")

        assert loop.run_until_complete(main()) == 4
        assert len(calls) == 1
        loop.run_until_complete(loop.shutdown_default_executor())
