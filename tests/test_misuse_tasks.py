"""Misuse of tasks, futures and the functions that take them: awaited twice, impossible times, the wrong kind of object."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from misuse import HOUR, Case, awaited, cases, nothing, plain, same_on_all_sides, tried
from outcomes import outcome
from sides import Side


async def awaited_twice(side: Side) -> Any:
    outcomes: list[Any] = []
    lock, event, queue, future = side.Lock(), side.Event(), side.Queue(), asyncio.get_running_loop().create_future()
    event.set()
    queue.put_nowait(1)
    queue.put_nowait(2)
    future.set_result(7)
    made: list[Callable[[], Any]] = [
        lambda: side.sleep(0, 1),
        lambda: side.sleep(0.001),
        lambda: side.wait_for(nothing(), 1),
        lambda: side.wait_for(future, None),
        lambda: side.wait_for(future, 0),
        lambda: side.wait([future]),
        lambda: side.to_thread(int),
        lock.acquire,
        event.wait,
        queue.get,
        lambda: queue.put(1),
        side.Barrier(1).wait,
    ]
    for make in made:
        awaitable = make()
        outcomes.append(str(plain(await outcome(awaitable))).replace("{", "").split("future=")[0].split("Future")[0])
        outcomes.append(await awaited(lambda awaitable=awaitable: awaitable))
        outcomes += [tried(awaitable.send, None), tried(awaitable.throw, ValueError("x")), tried(awaitable.close)]
    gathered = side.gather(nothing(), nothing())
    outcomes += [await gathered, await gathered, await side.gather(gathered, gathered)]
    waiting = side.sleep(HOUR)
    first = asyncio.ensure_future(waiting)
    await asyncio.sleep(0)
    outcomes += [await awaited(lambda: waiting), tried(waiting.close), tried(waiting.throw, ValueError("thrown"))]
    first.cancel()
    outcomes.append(await awaited(lambda: first))
    unstarted = side.sleep(0)
    outcomes += [tried(unstarted.send, 1), tried(unstarted.throw, ValueError("early")), await awaited(lambda: unstarted)]
    for odd in (5, None, "text", [1], nothing, lambda: None):
        outcomes.append(await awaited(side.wait_for, odd, 1))
        outcomes.append(await awaited(side.wait_for, odd, None))
        outcomes.append(await awaited(side.wait_for, odd, 0))
        outcomes.append(tried(side.shield, odd))
        outcomes.append(tried(side.ensure_future, odd))
        outcomes.append(tried(side.gather, odd))
        outcomes.append(tried(side.create_task, odd))
        outcomes.append(await awaited(side.wait, [odd]))
    return [str(item).split(" at 0x")[0] for item in outcomes]


async def odd_times(side: Side) -> Any:
    outcomes: list[Any] = []
    future = asyncio.get_running_loop().create_future()
    for number in (-1, -(1 << 70), -0.5, float("-inf"), None, "1", True, b"1", ()):
        outcomes.append(("sleep", plain(number), await awaited(side.sleep, number)))
        outcomes.append(("wait_for", plain(number), await awaited(side.wait_for, future, number)))
        future = asyncio.get_running_loop().create_future()
        outcomes.append(("wait", plain(number), await awaited(lambda number=number, future=future: waited(side, future, number))))
        outcomes.append(("timeout", plain(number), await awaited(lambda number=number: timed(side.timeout, number))))
        outcomes.append(("timeout_at", plain(number), await awaited(lambda number=number: timed(side.timeout_at, number))))
    return outcomes


async def waited(side: Side, future: Any, timeout: Any) -> Any:
    done, pending = await side.wait([future], timeout=timeout)
    return len(done), len(pending)


async def timed(timeout: Callable[..., Any], number: Any) -> Any:
    async with timeout(number) as entered:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    return entered.expired()


async def misuse_of_groups(side: Side) -> Any:
    outcomes: list[Any] = []
    group = side.TaskGroup()
    coroutine = nothing()
    outcomes += [tried(group.create_task, coroutine), plain(group), await awaited(group.__aexit__, None, None, None)]
    group = side.TaskGroup()
    async with group:
        outcomes += [await awaited(group.__aenter__), tried(group.create_task, 5), tried(group.create_task, nothing)]
        outcomes += [tried(group.create_task), tried(group.create_task, nothing(), nonsense=1)[0]]
        task = group.create_task(nothing(), name="named")
    outcomes += [plain(group), await awaited(group.__aenter__), tried(group.create_task, nothing()), task.get_name()]
    outcomes += [await awaited(group.__aexit__, None, None, None)]
    group = side.TaskGroup()
    try:
        async with group:
            group.create_task(failing())
            try:
                await asyncio.sleep(HOUR)
            finally:
                outcomes += [plain(group), tried(group.create_task, nothing())]
    except BaseException as error:
        outcomes.append(plain(error))
    outcomes += [plain(group), tried(group.create_task, nothing()), await awaited(group.__aenter__)]
    return [*outcomes, tried(lambda: side.TaskGroup().__enter__())]


async def failing() -> None:
    raise ValueError("failed")


async def misuse_of_timeouts(side: Side) -> Any:
    outcomes: list[Any] = []
    timeout = side.timeout(HOUR)
    outcomes += [tried(timeout.reschedule, 5), tried(timeout.expired), await awaited(timeout.__aexit__, None, None, None)]
    timeout = side.timeout(None)
    async with timeout:
        outcomes += [tried(timeout.reschedule), tried(timeout.reschedule, "1"), tried(timeout.reschedule, b"1", 2)]
        outcomes += [tried(timeout.reschedule, None), timeout.when(), await awaited(timeout.__aenter__)]
    outcomes += [tried(timeout.reschedule, None), tried(timeout.reschedule, 1), await awaited(timeout.__aenter__)]
    outcomes += [
        await awaited(timeout.__aexit__, None, None, None),
        plain(timeout),
        tried(side.timeout),
        tried(side.timeout, 1, 2),
    ]
    outcomes += [
        tried(side.Timeout),
        tried(side.Timeout, 1, 2),
        tried(lambda: side.timeout(1).__enter__()),
        tried(side.timeout_at),
    ]
    try:
        async with side.timeout(-1) as timeout:
            await asyncio.sleep(HOUR)
    except TimeoutError as error:
        outcomes.append(plain(error))
    return [*outcomes, plain(timeout), tried(timeout.reschedule, None), timeout.expired()]


async def misuse_of_futures(side: Side) -> Any:
    outcomes: list[Any] = []
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    outcomes += [
        tried(future.result),
        tried(future.exception),
        tried(future.add_done_callback)[0],
        tried(future.set_exception, 5),
    ]
    outcomes += [
        tried(future.set_exception, StopIteration),
        tried(future.set_exception, StopIteration(3)),
        tried(future.set_result)[0],
    ]
    outcomes += [tried(future.set_exception, int), tried(future.cancel, 1), tried(future.remove_done_callback, None)]
    future = loop.create_future()
    future.set_result(1)
    outcomes += [
        tried(future.set_result, 2),
        tried(future.set_exception, ValueError()),
        future.cancel(),
        tried(future.add_done_callback, 5),
    ]
    future = loop.create_future()
    future.cancel("message")
    outcomes += [tried(future.set_result, 2), tried(future.result), tried(future.exception), future.cancel("again")]
    outcomes += [tried(side.Future, 5), tried(side.Future, loop=5)]
    return without_coroutines(outcomes)


async def misuse_of_tasks(side: Side) -> Any:
    outcomes: list[Any] = []
    task = asyncio.ensure_future(nothing())
    outcomes += [tried(task.result), tried(task.exception), tried(task.set_result, 1), tried(task.set_exception, ValueError())]
    outcomes += [
        await task,
        tried(task.uncancel),
        tried(task.cancel),
        tried(task.cancelling),
        tried(task.set_name, 5),
        task.get_name(),
    ]
    outcomes += [tried(side.Task, 5), tried(side.Task, nothing), tried(side.Task)[0]]
    coroutine = nothing()
    outcomes += [tried(side.Task, coroutine, loop=5), tried(side.Task, coroutine, name=3, nonsense=1)[0]]
    coroutine.close()
    return without_coroutines(outcomes)


async def what_a_task_awaits(side: Side) -> Any:
    outcomes: list[Any] = []
    loop = asyncio.get_running_loop()

    async def awaits_itself() -> None:
        await asyncio.current_task()  # type: ignore[misc]

    async def yields(value: Any) -> Any:
        class Yields:
            def __await__(self) -> Any:
                return (yield value)

        return await Yields()

    outcomes.append(await awaited(awaits_itself))
    for value in (5, "text", [1], object, (item for item in ())):
        outcomes.append(await awaited(yields, value))
    bare = loop.create_future()
    outcomes += [await awaited(yields, bare), await awaited(yields, loop.create_task(nothing()))]
    return without_coroutines(outcomes)


def without_coroutines(outcomes: list[Any]) -> list[str]:
    return [re.sub(r" wait_for=.*?>", "", re.sub(r"coro=<.*?>", "", str(item))) for item in outcomes]


async def gather_and_its_kin(side: Side) -> Any:
    outcomes: list[Any] = []
    future = asyncio.get_running_loop().create_future()
    for keywords in ({"loop": None}, {"timeout": 1}, {"return_exceptions": "yes"}):
        outcomes.append(tried(lambda keywords=keywords: type(side.gather(future, **keywords)).__name__))
    outcomes += [
        await awaited(side.wait, []),
        await awaited(side.wait, future),
        await awaited(side.wait, [future], return_when="X"),
    ]
    outcomes += [
        await awaited(side.wait, None),
        await awaited(side.wait),
        await awaited(side.wait, 5),
        await awaited(side.wait, [nothing]),
    ]
    outcomes += [
        tried(lambda: list(side.as_completed(future))),
        tried(lambda: list(side.as_completed(5))),
        tried(lambda: list(side.as_completed([5]))),
    ]
    outcomes += [
        tried(side.as_completed),
        tried(side.shield),
        tried(side.wait_for),
        tried(side.wait_for, future),
        tried(side.gather, future, 5),
    ]
    outcomes += [tried(side.run_coroutine_threadsafe, 5, asyncio.get_running_loop()), tried(side.run_coroutine_threadsafe)]
    outcomes += [
        tried(side.run, 5),
        tried(side.run, nothing),
        tried(side.wrap_future, 5),
        tried(side.current_task, 5),
        tried(side.all_tasks, 5),
    ]
    outcomes += [
        tried(side.ensure_future, future, loop=5),
        tried(side.create_task),
        await awaited(side.sleep),
        await awaited(side.to_thread),
    ]
    for call in (lambda: side.to_thread(5), lambda: side.to_thread(int, "x")):
        outcomes.append(plain(await outcome(call())))
    future.cancel()
    return [re.sub(r"<Future.*>", "<Future>", str(item)) for item in outcomes]


@cases(
    awaited_twice,
    odd_times,
    misuse_of_groups,
    misuse_of_timeouts,
    misuse_of_futures,
    misuse_of_tasks,
    what_a_task_awaits,
    gather_and_its_kin,
)
def test_misuse_of_tasks(case: Case, debug: bool) -> None:
    assert "Error" in same_on_all_sides(case, debug)
