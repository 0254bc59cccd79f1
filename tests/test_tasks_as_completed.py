"""as_completed(): what CPython's own tests do not ask, with the names of asyncio and of ioxide, on every loop."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import ioxide
from outcomes import outcome, same_on_all_sides
from sides import Side, side

__all__ = ("side",)

HOUR = 3600.0
ITERATES_ASYNCHRONOUSLY = sys.version_info >= (3, 13)
asynchronously = pytest.mark.skipif(not ITERATES_ASYNCHRONOUSLY, reason="asyncio's has no `async for` before 3.13")


async def value(result: object, turns: int = 0) -> Any:
    for _ in range(turns):
        await asyncio.sleep(0)
    return result


async def failing(message: str, turns: int = 0) -> None:
    await value(None, turns)
    raise ValueError(message)


@pytest.mark.parametrize("timeout", [None, HOUR])
def test_in_the_order_of_their_ends(timeout: Any) -> None:
    async def main(side: Side) -> Any:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.02, future.set_result, "future")
        awaitables = [future, value("third", 9), value("first", 1), side.names.create_task(value("second", 5))]
        return [await earliest for earliest in side.as_completed(awaitables, timeout=timeout)]

    assert same_on_all_sides(main) == ["first", "second", "third", "future"]


@pytest.mark.parametrize("kind", [list, tuple, set, iter, dict.fromkeys, lambda items: (item for item in items)])
def test_any_iterable_and_the_same_one_twice(kind: Callable[[Any], Any]) -> None:
    async def main(side: Side) -> Any:
        tasks = [side.names.create_task(value(index, index)) for index in range(5)]
        coroutine = value("coroutine", 7)
        try:
            return [await earliest for earliest in side.as_completed(kind([*tasks, coroutine, coroutine, *tasks]))]
        except TypeError as error:  # 3.11 takes a generator for a coroutine
            await coroutine
            return str(error)

    assert same_on_all_sides(main) in ([0, 1, 2, 3, 4, "coroutine"], "expect an iterable of futures, not generator")


def test_exceptions_and_cancellations() -> None:
    async def main(side: Side) -> Any:
        cancelled = asyncio.create_task(value(1, 99))
        asyncio.get_running_loop().call_soon(cancelled.cancel, "message")
        awaitables = [failing("late", 9), cancelled, failing("early", 5)]
        return [await outcome(earliest) for earliest in side.as_completed(awaitables)]

    same_on_all_sides(main)


def test_done_before_it_begins() -> None:
    async def main(side: Side) -> Any:
        tasks = [asyncio.create_task(value(index)) for index in range(3)]
        await asyncio.wait(tasks)
        return sorted([await earliest for earliest in side.as_completed(tasks)])

    same_on_all_sides(main)


@pytest.mark.parametrize("timeout", [0, -1, 0.005])
def test_too_late(timeout: float) -> None:
    async def main(side: Side) -> Any:
        never = [asyncio.get_running_loop().create_future() for _ in range(2)]
        done = asyncio.create_task(value("in time"))
        await done
        seen = [await outcome(earliest) for earliest in side.as_completed([*never, done], timeout=timeout)]
        return seen, [future.done() for future in never], [future._callbacks for future in never]

    same_on_all_sides(main)


def test_several_wait_at_once_and_some_give_up() -> None:
    async def main(side: Side) -> Any:
        log: list[Any] = []
        futures = [asyncio.get_running_loop().create_future() for _ in range(4)]
        waiting = [asyncio.create_task(outcome(earliest)) for earliest in side.as_completed(futures)]
        await value(None, 2)
        waiting[0].cancel("enough")
        futures[2].set_result("two")
        waiting[1].cancel()
        await value(None, 4)
        for index in (3, 0, 1):
            futures[index].set_result(index)
            await value(None, 4)
            log.append([task.done() for task in waiting])
        return log, [await task for task in waiting]

    same_on_all_sides(main)


def test_a_wake_up_goes_on_to_the_next() -> None:
    async def main(side: Side) -> Any:
        futures = [asyncio.get_running_loop().create_future() for _ in range(2)]
        first, second = (asyncio.create_task(outcome(earliest)) for earliest in side.as_completed(futures))
        await value(None, 2)
        futures[1].set_result("for the second")
        await value(None, 1)
        first.cancel()  # it has been woken already
        await value(None, 3)
        seen = [first.done(), second.done()]
        futures[0].set_result("for nobody")
        await value(None, 3)
        return seen, [await first, await second]

    same_on_all_sides(main)


def test_the_coroutines_may_be_awaited_in_any_order() -> None:
    async def main(side: Side) -> Any:
        coroutines = list(side.as_completed([value("first", 1), value("second", 3)]))
        return [await coroutines[1], await coroutines[0]]

    assert same_on_all_sides(main) == ["first", "second"]


@pytest.mark.parametrize("awaitables", [[], (), set(), iter([])])
def test_nothing_to_wait_for(awaitables: Any) -> None:
    async def main(side: Side) -> Any:
        return list(side.as_completed(awaitables, timeout=HOUR))

    assert same_on_all_sides(main) == []


@pytest.mark.parametrize("awaitables", [1, None, [1], ["text"], [[]]])
def test_refuses_what_is_no_collection_of_awaitables(awaitables: Any) -> None:
    async def main(side: Side) -> Any:
        async def call() -> Any:
            return list(side.as_completed(awaitables))

        return (await outcome(call()))[:2]

    same_on_all_sides(main)


def test_refuses_a_future_and_a_coroutine() -> None:
    async def main(side: Side) -> Any:
        future, coroutine = asyncio.get_running_loop().create_future(), value(1)

        async def call(refused: Any) -> Any:
            return list(side.as_completed(refused))

        seen = [(await outcome(call(refused)))[:2] for refused in (future, coroutine)]
        coroutine.close()
        return seen

    same_on_all_sides(main)


def test_futures_of_another_loop() -> None:
    async def main(side: Side) -> Any:
        other = side.loop_factory()
        try:
            future = other.create_future()

            async def call() -> Any:
                return list(side.as_completed([future]))

            return (await outcome(call()))[:2]
        finally:
            other.close()

    same_on_all_sides(main)


def test_without_a_loop(side: Side) -> None:
    coroutine = value(1)
    asyncio.set_event_loop(None)
    with pytest.raises(RuntimeError, match=r"no (current|running) event loop"):
        list(side.as_completed([coroutine]))
    coroutine.close()


@asynchronously
def test_asynchronous_iteration() -> None:
    async def main(side: Side) -> Any:
        tasks = [side.names.create_task(value(index, 5 - index)) for index in range(5)]
        order = [tasks.index(earliest) async for earliest in side.as_completed(tasks)]
        made = [await earliest async for earliest in side.as_completed([value("second", 4), value("first", 1)])]
        mixed: Any = side.as_completed([asyncio.create_task(value(1, 1)), asyncio.create_task(value(2, 2))])
        return order, made, await next(mixed), await (await anext(mixed)), await outcome(anext(mixed)), list(mixed)

    same_on_all_sides(main)


@asynchronously
def test_asynchronous_iteration_too_late() -> None:
    async def main(side: Side) -> Any:
        never = [asyncio.get_running_loop().create_future() for _ in range(2)]
        iterator: Any = side.as_completed(never, timeout=0.005)
        return [await outcome(anext(iterator)) for _ in range(4)]

    same_on_all_sides(main)


@asynchronously
def test_asynchronous_iteration_cancelled() -> None:
    async def main(side: Side) -> Any:
        futures = [asyncio.get_running_loop().create_future() for _ in range(2)]
        iterator: Any = side.as_completed(futures)
        task = asyncio.create_task(outcome(anext(iterator)))
        await value(None, 2)
        task.cancel("told")
        seen = [await task]
        for future in futures:
            future.set_result(1)
        await value(None, 2)
        return seen + [(await outcome(anext(iterator))) in futures for _ in range(2)]

    same_on_all_sides(main)


def test_ioxides_iterates_asynchronously_on_every_version() -> None:
    async def main() -> Any:
        tasks = [ioxide.create_task(value(index, index)) for index in range(3)]
        iterator: Any = ioxide.as_completed(tasks)
        return [tasks.index(earliest) async for earliest in iterator]

    assert ioxide.run(main()) == [0, 1, 2]


@pytest.mark.skipif(ITERATES_ASYNCHRONOUSLY, reason="a generator until 3.12 only")
def test_as_a_generator_nothing_happens_before_the_first_step() -> None:
    async def main(side: Side) -> Any:
        before = len(asyncio.all_tasks())
        coroutine = value(1)
        unused: Any = side.as_completed([coroutine])
        seen: list[Any] = [len(asyncio.all_tasks()) - before]
        unused.close()
        seen.append(list(unused))
        coroutine.close()
        generator: Any = side.as_completed([value(2), value(2)])
        seen.append(await generator.send(None))
        try:
            generator.throw(KeyError("thrown"))
        except KeyError as error:
            seen.append(repr(error))
        await value(None, 3)
        return seen, list(generator)

    same_on_all_sides(main)


def test_the_signature(side: Side) -> None:
    assert str(inspect.signature(side.as_completed)) == "(fs, *, timeout=None)"


def test_leaves_nothing_behind(side: Side) -> None:
    async def main() -> Any:
        futures = [asyncio.get_running_loop().create_future() for _ in range(2)]
        task = asyncio.create_task(outcome(next(iter(side.as_completed(futures, timeout=HOUR)))))
        await value(None, 2)
        task.cancel()
        await task
        for _ in range(200):
            await next(iter(side.as_completed([value(1)], timeout=HOUR)))
        return [weakref.ref(future) for future in futures]

    references = side.run(main())
    gc.collect()
    assert [reference() for reference in references] == [None, None]


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_what_is_not_awaited_is_warned_about() -> None:
    async def main(side: Side) -> Any:
        tasks = [asyncio.create_task(value(index)) for index in range(3)]
        for earliest in side.as_completed(tasks):
            del earliest
        await asyncio.wait(tasks)
        gc.collect()
        return [task.result() for task in tasks]

    same_on_all_sides(main)


@pytest.mark.parametrize("factory", ["asyncio", "uvloop"])
def test_under_foreign_tasks_and_loops(factory: str) -> None:
    make: Any = asyncio.SelectorEventLoop if factory == "asyncio" else pytest.importorskip("uvloop").new_event_loop

    async def main() -> Any:
        return [await earliest for earliest in ioxide.as_completed([value("late", 3), value("early")], timeout=HOUR)]

    with asyncio.Runner(loop_factory=make) as runner:
        assert runner.run(main()) == ["early", "late"]
