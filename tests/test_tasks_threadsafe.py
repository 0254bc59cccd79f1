"""run_coroutine_threadsafe: asyncio's and ioxide's, on every loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import inspect
from collections.abc import Callable
from typing import Any

import pytest

import ioxide
from outcomes import same_on_all_sides, shown
from sides import Side, side

__all__ = ("side",)


async def from_another_thread(function: Callable[[], Any]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, function)


def ended(future: concurrent.futures.Future[Any]) -> Any:
    """What the caller in the other thread sees."""
    try:
        return future.result(20)
    except BaseException as error:
        return shown(error)


async def twice(value: int) -> int:
    await asyncio.sleep(0)
    return value * 2


async def fail(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


def test_signature() -> None:
    expected = inspect.signature(asyncio.run_coroutine_threadsafe)
    assert str(inspect.signature(ioxide.run_coroutine_threadsafe)) == str(expected)


def test_results_and_exceptions_arrive() -> None:
    async def main(side: Side) -> list[Any]:
        loop = asyncio.get_running_loop()
        seen = []
        for coroutine in (
            twice(4),
            fail(ValueError("value")),
            fail(asyncio.CancelledError("cancelled")),
            fail(concurrent.futures.InvalidStateError("state")),
            fail(TimeoutError("late")),
        ):
            submit = side.run_coroutine_threadsafe
            seen.append(await from_another_thread(lambda: ended(submit(coroutine, loop))))
        return seen

    assert same_on_all_sides(main)[0] == 8


def test_from_the_loops_own_thread(side: Side) -> None:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        future = side.run_coroutine_threadsafe(twice(3), loop=loop)
        assert type(future) is concurrent.futures.Future and not future.done()
        return await asyncio.wrap_future(future)

    assert side.run(main()) == 6


def test_cancelling_the_future_cancels_the_task(side: Side) -> None:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        begun, cancelled = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        future = side.run_coroutine_threadsafe(wait(), loop)
        await begun.wait()
        assert await from_another_thread(future.cancel)
        await cancelled.wait()
        return future.cancelled()

    assert side.run(main())


def test_task_that_is_cancelled_cancels_the_future(side: Side) -> None:
    async def main() -> Any:
        tasks: list[Any] = []

        async def wait() -> None:
            tasks.append(asyncio.current_task())
            await asyncio.Event().wait()

        future = side.run_coroutine_threadsafe(wait(), asyncio.get_running_loop())
        while not tasks:
            await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.wait(tasks)
        await asyncio.sleep(0)
        return future.cancelled(), future.done()

    assert side.run(main()) == (True, True)


def test_future_that_is_cancelled_before_the_task_is_made() -> None:
    async def main(side: Side) -> Any:
        begun: list[int] = []

        async def begin() -> None:
            begun.append(1)

        future = side.run_coroutine_threadsafe(begin(), asyncio.get_running_loop())
        future.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        return begun, future.cancelled()

    same_on_all_sides(main)


@pytest.mark.parametrize("value", [None, 7, twice], ids=str)
def test_what_is_no_coroutine(side: Side, value: Any) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match=r"^A coroutine object is required$"):
            side.run_coroutine_threadsafe(value, asyncio.get_running_loop())
        with pytest.raises(TypeError):
            side.run_coroutine_threadsafe()

    side.run(main())


def test_closed_loop(side: Side) -> None:
    loop = side.loop_factory()
    loop.close()
    coroutine = twice(1)
    with pytest.raises(RuntimeError, match=r"^Event loop is closed$"):
        side.run_coroutine_threadsafe(coroutine, loop)
    coroutine.close()


def test_task_factory_is_asked_and_its_error_told_to_both(side: Side) -> None:
    class Refusal(Exception):
        pass

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        asked: list[Any] = []
        reports: list[Any] = []

        def refuse(_loop: Any, coroutine: Any, **_: Any) -> Any:
            asked.append(coroutine)
            coroutine.close()
            raise Refusal("no")

        def make(loop_: Any, coroutine: Any, **keywords: Any) -> Any:
            asked.append(coroutine)
            return asyncio.Task(coroutine, loop=loop_, **keywords)

        loop.set_exception_handler(lambda _loop, context: reports.append(context["exception"]))
        loop.set_task_factory(make)
        first = twice(2)
        result = await asyncio.wrap_future(side.run_coroutine_threadsafe(first, loop))
        loop.set_task_factory(refuse)
        second = twice(3)
        future = side.run_coroutine_threadsafe(second, loop)
        while not future.done():
            await asyncio.sleep(0)
        loop.set_task_factory(None)
        return result, asked == [first, second], future.exception() is reports[0], type(reports[0])

    assert side.run(main()) == (4, True, True, Refusal)


def test_context_of_the_caller(side: Side) -> None:
    variable = contextvars.ContextVar("variable", default="nothing")

    async def read() -> str:
        return variable.get()

    async def main() -> Any:
        loop = asyncio.get_running_loop()

        def submit() -> str:
            variable.set("caller")
            return str(side.run_coroutine_threadsafe(read(), loop).result(20))

        return await from_another_thread(submit)

    assert side.run(main()) == "caller"


def test_many_from_many_threads(side: Side) -> None:
    async def main() -> Any:
        loop = asyncio.get_running_loop()

        def submit(start: int) -> list[int]:
            futures = [side.run_coroutine_threadsafe(twice(start + n), loop) for n in range(50)]
            return [future.result(20) for future in futures]

        lists = await asyncio.gather(*(asyncio.to_thread(submit, 100 * thread) for thread in range(4)))
        return [result for results in lists for result in results]

    assert side.run(main()) == [2 * (100 * thread + n) for thread in range(4) for n in range(50)]


@pytest.mark.parametrize("factory", ["asyncio", "uvloop"])
def test_on_other_loops(factory: str) -> None:
    make: Any = asyncio.SelectorEventLoop if factory == "asyncio" else pytest.importorskip("uvloop").new_event_loop

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        return await from_another_thread(lambda: ioxide.run_coroutine_threadsafe(twice(21), loop).result(20))

    with asyncio.Runner(loop_factory=make) as runner:
        assert runner.run(main()) == 42
