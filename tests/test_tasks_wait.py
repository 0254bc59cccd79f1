"""wait(): what CPython's own tests do not ask, with the names of asyncio and of ioxide, on every loop.

Timeouts are an hour away, or zero where what is awaited never ends, so that no test depends on speed.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from outcomes import outcome, same_on_all_sides
from sides import Side, side

__all__ = ("side",)

HOUR = 3600.0
WHEN = [asyncio.ALL_COMPLETED, asyncio.FIRST_COMPLETED, asyncio.FIRST_EXCEPTION]


async def value(result: object, turns: int = 0) -> object:
    for _ in range(turns):
        await asyncio.sleep(0)
    return result


async def failing(message: str, turns: int = 0) -> None:
    await value(None, turns)
    raise ValueError(message)


def named(tasks: Any) -> list[str]:
    return sorted(task.get_name() for task in tasks)


def start(side: Side) -> list[Any]:
    """Tasks that return, raise, are cancelled and never end, by their names."""
    create = side.names.create_task
    cancelled = create(value("cancelled", 4), name="cancelled")
    asyncio.get_running_loop().call_soon(cancelled.cancel)
    return [
        create(value("slow", 9), name="slow"), create(failing("no", 5), name="failing"),
        create(value("at once"), name="at once"), cancelled,
    ]  # fmt: skip


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("timeout", [None, 0, -1, HOUR, True])
def test_done_and_pending(when: str, timeout: Any) -> None:
    async def main(side: Side) -> Any:
        tasks = start(side)
        done, pending = await side.wait(tasks, timeout=timeout, return_when=when)
        seen = [type(done), named(done), type(pending), named(pending)]
        seen += [[repr(task._callbacks) for task in pending], await outcome(asyncio.gather(*tasks))]
        await asyncio.wait(tasks)
        return seen, [task.exception() for task in tasks[1:2]] and None

    same_on_all_sides(main)


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset, iter, dict.fromkeys, lambda tasks: (task for task in tasks)])
def test_any_iterable(kind: Callable[[Any], Any]) -> None:
    async def main(side: Side) -> Any:
        tasks = [side.names.create_task(value(index, index), name=str(index)) for index in range(5)]
        try:
            done, pending = await side.wait(kind(tasks))
        except TypeError as error:  # 3.11 takes a generator for a coroutine
            return str(error)
        return named(done), named(pending)

    same_on_all_sides(main)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_the_same_one_several_times_and_done_ones(turns: int) -> None:
    async def main(side: Side) -> Any:
        tasks = [side.names.create_task(value(index, index), name=str(index)) for index in range(4)]
        await value(None, turns)
        done, pending = await side.wait([*tasks, *tasks], return_when=asyncio.FIRST_COMPLETED)
        seen = named(done), named(pending)
        await asyncio.gather(*tasks)
        return seen

    same_on_all_sides(main)


def test_several_wait_for_the_same() -> None:
    async def main(side: Side) -> Any:
        future = asyncio.get_running_loop().create_future()
        never = asyncio.get_running_loop().create_future()
        log: list[Any] = []

        async def waiter(who: str, **options: Any) -> None:
            done, pending = await side.wait([future, never], **options)
            log.append((who, len(done), len(pending)))

        future.add_done_callback(lambda _: log.append("callback before"))
        tasks = [
            asyncio.create_task(waiter("first", return_when="FIRST_COMPLETED")),
            asyncio.create_task(waiter("no time", timeout=0)),
            asyncio.create_task(waiter("all")),
            asyncio.create_task(waiter("exception", return_when="FIRST_EXCEPTION")),
        ]
        await value(None, 5)
        future.add_done_callback(lambda _: log.append("callback behind"))
        future.set_exception(ValueError("once"))
        await value(None, 5)
        log.append(future._callbacks)
        never.cancel()
        await asyncio.gather(*tasks)
        return log, future.exception() and None

    same_on_all_sides(main)


@pytest.mark.parametrize("message", [None, "told"])
def test_cancelled_while_it_waits(message: str | None) -> None:
    async def main(side: Side) -> Any:
        future = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(side.wait([future], timeout=HOUR))
        await value(None, 2)
        task.cancel(message)
        seen = await outcome(task)
        return seen, task.cancelled(), future.done(), future._callbacks

    same_on_all_sides(main)


@pytest.mark.parametrize(
    "arguments",
    [((), {}), (([],), {}), ((set(),), {}), ((1,), {}), ((iter([]),), {}), (([1],), {}), (([[]],), {}), ((None,), {}),
     (([], 1), {}), (([],), {"loop": None})],
)  # fmt: skip
def test_refuses_what_is_no_collection_of_futures(arguments: Any) -> None:
    async def main(side: Side) -> Any:
        async def call() -> Any:
            return await side.wait(*arguments[0], **arguments[1])

        kind, text, *_ = await outcome(call())
        return kind, text if "argument" not in text else "about the arguments"

    same_on_all_sides(main)


def test_refuses_a_future_a_coroutine_and_coroutines() -> None:
    async def main(side: Side) -> Any:
        future = asyncio.get_running_loop().create_future()
        coroutines = [value(1), side.sleep(0)]
        seen = [(await outcome(side.wait(refused)))[:2] for refused in (future, [coroutines[0]], [future, coroutines[1]])]
        seen.append((await outcome(side.wait(coroutines[0])))[:2])
        for coroutine in coroutines:
            coroutine.close()
        return seen

    same_on_all_sides(main)


@pytest.mark.parametrize("when", ["SOMETIMES", None, 1, ["ALL_COMPLETED"]])
def test_refuses_other_ends(when: Any) -> None:
    async def main(side: Side) -> Any:
        return (await outcome(side.wait([asyncio.get_running_loop().create_future()], return_when=when)))[:2]

    same_on_all_sides(main)


@pytest.mark.parametrize("timeout", ["1", [], object])
def test_refuses_what_is_no_time(timeout: Any) -> None:
    async def main(side: Side) -> Any:
        return (await outcome(side.wait([asyncio.get_running_loop().create_future()], timeout=timeout)))[0]

    same_on_all_sides(main)


def test_futures_of_other_classes() -> None:
    class Derived(asyncio.Future[int]):
        pass

    async def main(side: Side) -> Any:
        loop = asyncio.get_running_loop()
        derived = Derived(loop=loop)
        loop.call_soon(derived.set_result, 1)
        gathering = side.gather(value(1, 2), value(2, 3))
        done, pending = await side.wait([derived, gathering, asyncio.Task(value(3, 1), loop=loop)])
        return sorted(str(future.result()) for future in done), len(pending)

    same_on_all_sides(main)


@pytest.mark.parametrize("factory", ["asyncio", "uvloop"])
def test_under_foreign_tasks_and_loops(factory: str) -> None:
    import ioxide

    make: Any = asyncio.SelectorEventLoop if factory == "asyncio" else pytest.importorskip("uvloop").new_event_loop

    async def main() -> Any:
        tasks = [asyncio.create_task(value(index, index), name=str(index)) for index in range(3)]
        assert type(asyncio.current_task()) is asyncio.Task
        first = await ioxide.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=HOUR)
        shielded = await ioxide.shield(value("shielded", 2))
        return len(first[0]) > 0, named((await ioxide.wait(tasks))[0]), shielded

    with asyncio.Runner(loop_factory=make) as runner:
        assert runner.run(main()) == (True, ["0", "1", "2"], "shielded")


def test_an_exception_nobody_asked_for_is_still_reported() -> None:
    async def main(side: Side) -> Any:
        reports: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: reports.append(context["message"]))
        for when in WHEN:
            await side.wait([asyncio.create_task(failing("unseen"))], return_when=when)
            await side.wait([asyncio.create_task(failing("unseen")), loop.create_future()], return_when=when, timeout=0.005)
            gc.collect()
            reports.append(when)
        return reports

    same_on_all_sides(main)


def test_is_a_coroutine_function(side: Side) -> None:
    assert inspect.iscoroutinefunction(side.wait)
    assert str(inspect.signature(side.wait)) == "(fs, *, timeout=None, return_when='ALL_COMPLETED')"


def test_leaves_nothing_behind(side: Side) -> None:
    async def main() -> Any:
        never = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(side.wait([never], timeout=HOUR))
        await value(None, 2)
        task.cancel()
        await outcome(task)
        for _ in range(300):
            await side.wait([asyncio.create_task(value(1)), never], timeout=HOUR, return_when="FIRST_COMPLETED")
        assert never._callbacks is None
        return weakref.ref(task), weakref.ref(never)

    references = side.run(main())
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_closed_while_it_waits(side: Side) -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        coroutine = side.wait([future], timeout=HOUR)
        coroutine.send(None)
        assert future._callbacks
        coroutine.close()
        assert not future._callbacks

    side.run(main())
