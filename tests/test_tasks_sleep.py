"""sleep(), create_task() and ensure_future(), with the names of asyncio and of ioxide, on every loop."""

from __future__ import annotations

import asyncio
import contextvars
import fractions
import gc
import inspect
import math
import time
import weakref
from typing import Any, ClassVar

import pytest

import ioxide
from outcomes import outcome, same_on_all_sides
from sides import Side, side

__all__ = ("side",)

HOUR = 3600.0


@pytest.mark.parametrize("delay", [0, 0.0, -1, False, 1e-9, 0.001, True / 1000])
def test_returns_the_result(delay: Any) -> None:
    async def main(side: Side) -> Any:
        return await side.sleep(delay), await side.sleep(delay, "result"), await side.sleep(delay=delay, result=(1, 2))

    assert same_on_all_sides(main) == (None, "result", (1, 2))


# asyncio refuses NaN since 3.13; ioxide does on every version.
NOT_A_NUMBER = [math.nan] if "isnan" in inspect.getsource(asyncio.sleep) else []


@pytest.mark.parametrize("delay", ["1", None, *NOT_A_NUMBER, [], 10**400, fractions.Fraction(1, 1000)])
def test_refuses_what_is_no_delay(delay: Any) -> None:
    async def main(side: Side) -> Any:
        coroutine = side.sleep(delay)
        error = await outcome(asyncio.wait_for(coroutine, 0.01))
        return error[:2] if isinstance(error, tuple) else error

    same_on_all_sides(main)


def test_refuses_wrong_arguments(side: Side) -> None:
    with pytest.raises(TypeError, match=r"sleep\(\) missing 1 required positional argument: 'delay'"):
        side.sleep()
    with pytest.raises(TypeError, match=r"sleep\(\) got an unexpected keyword argument 'seconds'"):
        side.sleep(1, seconds=1)
    assert inspect.iscoroutinefunction(side.sleep)
    assert str(inspect.signature(side.sleep)) == "(delay, result=None)"


def test_outside_of_a_loop(side: Side) -> None:
    coroutine = side.sleep(1)
    with pytest.raises(RuntimeError, match=r"^no running event loop$"):
        coroutine.send(None)
    coroutine = side.sleep(0, 5)
    assert coroutine.send(None) is None
    with pytest.raises(StopIteration) as caught:
        coroutine.send(None)
    assert caught.value.value == 5


def test_order_of_sleepers() -> None:
    async def main(side: Side) -> Any:
        log: list[int] = []

        async def sleeper(number: int, delay: float) -> None:
            await side.sleep(delay)
            log.append(number)

        delays = [0.004, 0.001, 0.003, 0.001, 0.002]
        await asyncio.gather(*[sleeper(number, delay) for number, delay in enumerate(delays)])
        return log

    assert same_on_all_sides(main) == [1, 3, 4, 2, 0]


def test_never_wakes_early(side: Side) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for delay in (0.0001, 0.001, 0.01):
            begun = loop.time()
            await side.sleep(delay)
            assert loop.time() - begun >= delay

    side.run(main())


def test_turns_between_the_timer_and_the_sleeper() -> None:
    """The timer sets the future's result in one turn, and the task goes on in the next."""

    async def main(side: Side) -> Any:
        loop = asyncio.get_running_loop()
        log: list[str] = []

        async def sleeper() -> None:
            await side.sleep(0.1)
            log.append("awake")

        task = asyncio.create_task(sleeper())
        await asyncio.sleep(0)
        loop.call_later(0.11, lambda: (log.append("timer"), loop.call_soon(log.append, "after the timer")))
        time.sleep(0.15)  # both are due in the same turn
        await task
        return log

    same_on_all_sides(main)


@pytest.mark.parametrize("message", [None, "enough"])
def test_cancelled(message: str | None) -> None:
    async def main(side: Side) -> Any:
        tasks = [asyncio.create_task(side.sleep(HOUR, number)) for number in range(300)]
        await asyncio.sleep(0)
        results = [repr(task).count("sleep() running at") for task in tasks[:2]]
        for task in tasks:
            task.cancel(message)
        outcomes = [repr(await outcome(task)) for task in tasks]
        return results, outcomes, len(asyncio.all_tasks())

    same_on_all_sides(main)


def test_thrown_into_and_closed() -> None:
    async def main(side: Side) -> Any:
        seen = []
        coroutine = side.sleep(HOUR)
        future = coroutine.send(None)
        seen += [asyncio.isfuture(future), future.done(), future._asyncio_future_blocking]
        with pytest.raises(ZeroDivisionError):
            coroutine.throw(ZeroDivisionError())
        coroutine = side.sleep(HOUR)
        coroutine.send(None)
        coroutine.close()
        with pytest.raises(RuntimeError) as caught:
            coroutine.send(None)
        return [*seen, str(caught.value)]

    same_on_all_sides(main)


def test_a_loop_that_is_forgotten_with_its_sleepers_is_freed(side: Side) -> None:
    loop = side.loop_factory()
    task = loop.create_task(side.sleep(HOUR))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.set_exception_handler(lambda _loop, _report: None)
    reference = weakref.ref(task)
    task.cancel()
    loop.run_until_complete(asyncio.wait([task]))
    loop.close()
    del task, loop
    gc.collect()
    assert reference() is None


def test_overridden_clocks_and_timers_are_honoured() -> None:
    class Loop(ioxide.EventLoop):
        delays: ClassVar[list[float]] = []

        def call_later(self, delay: float, *arguments: Any, **keywords: Any) -> Any:
            self.delays.append(delay)
            return super().call_later(delay, *arguments, **keywords)

    async def main() -> None:
        await ioxide.sleep(0.001)
        await ioxide.sleep(0)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())
    assert Loop.delays == [0.001]


def test_results_are_not_kept() -> None:
    class Result:
        pass

    async def main(side: Side) -> Any:
        result = Result()
        reference = weakref.ref(result)
        for delay in (0, 0.001):
            assert await side.sleep(delay, result) is result
        del result
        await asyncio.sleep(0)
        gc.collect()
        return reference() is None

    assert same_on_all_sides(main)


async def value(result: object) -> object:
    return result


def test_create_task() -> None:
    async def main(side: Side) -> Any:
        variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

        async def read() -> int:
            return variable.get()

        context = contextvars.copy_context()
        context.run(variable.set, 5)
        named = side.create_task(read(), name="named", context=context)
        number = side.create_task(value(1), name=7)
        other = side.create_task(value(2))
        seen = [named.get_name(), number.get_name(), other.get_name().startswith("Task-"), await named, await number, await other]
        for arguments, keywords in [((1,), {}), ((), {}), ((None, None), {})]:
            with pytest.raises(TypeError):
                side.create_task(*arguments, **keywords)
        return seen

    same_on_all_sides(main)


def test_create_task_without_a_loop(side: Side) -> None:
    coroutine = value(1)
    with pytest.raises(RuntimeError, match=r"^no running event loop$"):
        side.create_task(coroutine)
    coroutine.close()


def test_ensure_future() -> None:
    class Awaitable:
        def __await__(self) -> Any:
            return (yield from asyncio.sleep(0, "awaited").__await__())

    async def main(side: Side) -> Any:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        task = side.ensure_future(value(1))
        seen = [
            side.ensure_future(future) is future, side.ensure_future(task) is task,
            side.ensure_future(task, loop=loop) is task, isinstance(task, asyncio.Task),
            await task, await side.ensure_future(Awaitable()), await side.ensure_future(value(2), loop=loop),
        ]  # fmt: skip
        with pytest.raises(TypeError) as caught:
            side.ensure_future(1)
        return [*seen, str(caught.value)]

    same_on_all_sides(main)
