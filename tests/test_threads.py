"""to_thread: what CPython's own test_threads does not ask, of asyncio's and of ioxide's, on every loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import inspect
import queue
import threading
import time
from typing import Any

import pytest

import ioxide
from outcomes import outcome
from sides import Side, side

__all__ = ("side",)


def fail(error: BaseException) -> None:
    raise error


def test_arguments_result_and_thread(side: Side) -> None:
    def function(*arguments: Any, **keywords: Any) -> Any:
        return arguments, keywords, threading.current_thread().name

    async def main() -> Any:
        return await side.to_thread(function, 1, 2, func="x", three=3)

    assert side.run(main()) == ((1, 2), {"func": "x", "three": 3}, "asyncio_0")


def test_exceptions(side: Side) -> None:
    async def main() -> list[Any]:
        return [
            (await outcome(side.to_thread(fail, error)))[:2]
            for error in (ValueError("text"), TimeoutError("late"), concurrent.futures.CancelledError("x"))
        ]

    assert side.run(main())[:2] == [("ValueError", "text"), ("TimeoutError", "late")]


def test_context_is_copied(side: Side) -> None:
    variable = contextvars.ContextVar("variable", default=0)

    def function() -> int:
        seen = variable.get()
        variable.set(99)
        return seen

    async def main() -> tuple[int, int]:
        variable.set(1)
        coroutine = side.to_thread(function)
        variable.set(2)
        return await coroutine, variable.get()

    assert side.run(main()) == (2, 2)


def test_nothing_happens_before_the_await(side: Side) -> None:
    called: list[int] = []

    async def main() -> None:
        coroutine = side.to_thread(called.append, 1)
        assert asyncio.iscoroutine(coroutine)
        await asyncio.sleep(0)
        coroutine.close()

    side.run(main())
    assert called == []
    with pytest.raises(TypeError):
        side.to_thread().send(None)
    coroutine = side.to_thread(called.append, 1)
    with pytest.raises(RuntimeError, match=r"^no running event loop$"):
        coroutine.send(None)


def test_many_at_once(side: Side) -> None:
    async def main() -> list[int]:
        return await asyncio.gather(*(side.to_thread(functools.partial(pow, number, 2)) for number in range(200)))

    assert side.run(main()) == [number**2 for number in range(200)]


def test_worker_starts_while_the_loop_goes_on(side: Side) -> None:
    """A step that computes for long, or one that blocks, does not hold up what was handed to a worker before."""
    started = threading.Event()

    async def block() -> bool:
        return started.wait(20)

    async def main() -> list[Any]:
        return await asyncio.gather(side.to_thread(started.set), block())

    assert side.run(main()) == [None, True]
    started.clear()

    async def plain() -> bool:
        future = asyncio.get_running_loop().run_in_executor(None, started.set)
        began = started.wait(20)
        await future
        return began

    assert side.run(plain())


def test_worker_that_is_stopped_with_the_loop(side: Side) -> None:
    """What was handed out in the very last step of a run is done, and the shutdown waits for it."""
    done: list[int] = []

    async def main() -> None:
        task = asyncio.ensure_future(side.to_thread(done.append, 1))
        await asyncio.sleep(0)
        assert not task.done() or done == [1]

    side.run(main())
    assert done == [1]


def test_worker_that_wakes_the_loop_before_its_work_ends(side: Side) -> None:
    async def main() -> bool:
        loop = asyncio.get_running_loop()
        reached = asyncio.Event()
        release = threading.Event()

        def function() -> bool:
            loop.call_soon_threadsafe(reached.set)
            return release.wait(20)

        task = asyncio.ensure_future(side.to_thread(function))
        await reached.wait()
        release.set()
        return await task

    assert side.run(main())


def test_loop_in_a_worker(side: Side) -> None:
    def inner() -> Any:
        async def main() -> Any:
            return await side.to_thread(threading.current_thread), await side.to_thread(int, "7")

        return side.run(main())[1]

    async def main() -> Any:
        return await asyncio.gather(side.to_thread(inner), side.to_thread(inner))

    assert side.run(main()) == [7, 7]


def test_cancelled_wait(side: Side) -> None:
    async def main() -> tuple[bool, list[int]]:
        called: list[int] = []
        loop = asyncio.get_running_loop()
        loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(1))
        release, started = threading.Event(), asyncio.Event()

        def first() -> None:
            loop.call_soon_threadsafe(started.set)
            release.wait(20)

        running = asyncio.ensure_future(side.to_thread(first))
        await started.wait()
        waiting = asyncio.ensure_future(side.to_thread(called.append, 1))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        release.set()
        await running
        return waiting.cancelled(), called

    assert side.run(main()) == (True, [])


def test_executor_of_the_program_and_replaced_method(side: Side) -> None:
    class Executor(concurrent.futures.ThreadPoolExecutor):
        submitted: list[Any]

        def submit(self, function: Any, /, *arguments: Any, **keywords: Any) -> Any:
            self.submitted.append(type(function))
            return super().submit(function, *arguments, **keywords)

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        executor = Executor(1)
        executor.submitted = []
        loop.set_default_executor(executor)
        await side.to_thread(time.monotonic)
        calls: list[Any] = []
        own = loop.run_in_executor

        def run_in_executor(*arguments: Any) -> Any:
            calls.append(arguments[0])
            return own(*arguments)

        loop.run_in_executor = run_in_executor
        await side.to_thread(time.monotonic)
        del loop.run_in_executor
        return executor.submitted, calls

    submitted, calls = side.run(main())
    assert submitted == [functools.partial] * 2 and calls == [None]


def test_idle_worker_is_used_again_and_all_end_with_the_loop(side: Side) -> None:
    async def main() -> set[str]:
        return {await side.to_thread(lambda: threading.current_thread().name) for _ in range(20)}

    before = set(threading.enumerate())
    assert len(side.run(main())) <= 2  # a worker may still be on its way to sleep
    assert set(threading.enumerate()) <= before


def test_queue_of_the_workers() -> None:
    """ThreadPoolExecutor uses its queue in these ways, some of them only when it is shut down."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        await loop.run_in_executor(None, int)
        return loop._default_executor._work_queue

    workers = ioxide.run(main())
    while not workers.empty():
        workers.get_nowait()
    for get in (workers.get_nowait, lambda: workers.get(False), lambda: workers.get(timeout=0.001)):
        with pytest.raises(queue.Empty):
            get()
    with pytest.raises(ValueError):
        workers.get(timeout=-1)
    workers.put(1)
    workers.put(None)
    assert (workers.qsize(), workers.get(), workers.get(block=True, timeout=1), workers.empty()) == (2, 1, None, True)
    got: list[Any] = []
    threads = [threading.Thread(target=lambda: got.append(workers.get())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(4):
        workers.put(number)
    for thread in threads:
        thread.join(20)
    assert sorted(got) == [0, 1, 2, 3]


def test_coroutine_function_and_signature() -> None:
    assert inspect.iscoroutinefunction(ioxide.to_thread)
    assert str(inspect.signature(ioxide.to_thread)) == str(inspect.signature(asyncio.to_thread))
