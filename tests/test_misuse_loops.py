"""What belongs to another loop, no loop, no task or another thread.

Leaves to others: calls of the loop itself (test_bad_input.py).
"""

from __future__ import annotations

import asyncio
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from misuse import HOUR, Case, awaited, cases, nothing, plain, same_on_all_sides, step, tried
from sides import SIDES, Side


async def objects_of_another_loop(side: Side) -> Any:
    """Each primitive is bound to a loop by waiting there; then another one waits on it."""
    outcomes: list[Any] = []
    lock, event, semaphore = side.Lock(), side.Event(), side.Semaphore(0)
    condition, full, empty, barrier = side.Condition(), side.Queue(1), side.Queue(), side.Barrier(3)
    full.put_nowait(1)
    empty_join = side.Queue()
    empty_join.put_nowait(1)
    await lock.acquire()
    async with condition:
        pass

    async def notified() -> None:
        async with condition:
            await condition.wait()

    waits: dict[str, Callable[[], Any]] = {
        "lock": lock.acquire,
        "event": event.wait,
        "semaphore": semaphore.acquire,
        "condition": notified,
        "put": lambda: full.put(2),
        "get": empty.get,
        "join": empty_join.join,
        "barrier": barrier.wait,
    }
    tasks = [asyncio.ensure_future(wait()) for wait in waits.values()]
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    async def elsewhere() -> None:
        for name, wait in waits.items():
            outcomes.append((name, re.sub(r"<.* object at .*> is", "<it> is", str(await awaited(wait)))))

    def thread() -> None:
        with asyncio.Runner(loop_factory=side.loop_factory) as runner:
            runner.run(elsewhere())

    await asyncio.get_running_loop().run_in_executor(None, thread)
    for task in tasks:
        task.cancel()
    outcomes.append(plain(await asyncio.gather(*tasks, return_exceptions=True)))
    return outcomes


async def futures_of_another_loop(side: Side) -> Any:
    other = side.loop_factory()
    outcomes: list[Any] = []
    try:
        future = other.create_future()
        finished = other.create_future()
        finished.set_result(1)
        own = asyncio.get_running_loop().create_future()
        loop_text = re.compile(r"<_\w+EventLoop[^>]*>|<ioxide[^>]*>|<\w*Loop[^>]*>")

        async def waits() -> None:
            await future

        calls = [
            lambda: side.wait_for(future, 1),
            lambda: side.wait_for(finished, 1),
            lambda: side.wait([future]),
            lambda: side.wait([future, own]),
            lambda: side.gather(future, own),
            lambda: side.shield(future),
            lambda: side.ensure_future(future, loop=asyncio.get_running_loop()),
            lambda: side.ensure_future(waits(), loop=None),
            waits,
        ]
        for call in calls:
            outcomes.append(loop_text.sub("<loop>", str(await awaited(call))))
        future.cancel()
    finally:
        other.close()
    return outcomes


@contextmanager
def from_a_callback(outcomes: list[Any]) -> Iterator[Callable[..., None]]:
    """Calls things later, where no task runs."""
    loop = asyncio.get_running_loop()
    yield lambda call, *arguments: loop.call_soon(lambda: outcomes.append(tried(call, *arguments)))


async def outside_of_tasks(side: Side) -> Any:
    """Steps of awaitables by hand from a callback: a loop runs, but no task."""
    outcomes: list[Any] = []
    locked, empty = side.Lock(), side.Queue()
    await locked.acquire()
    future = asyncio.get_running_loop().create_future()
    group = side.TaskGroup()
    with from_a_callback(outcomes) as later:
        for awaitable in (locked.acquire(), empty.get(), side.Event().wait(), side.sleep(0), side.sleep(HOUR)):
            later(lambda awaitable=awaitable: type(step(awaitable)).__name__)
        later(lambda: type(step(side.wait_for(nothing(), HOUR))).__name__)
        later(lambda: type(step(side.wait_for(future, HOUR))).__name__)
        later(lambda: step(side.wait_for(future, 0)))
        later(lambda: step(side.wait_for(future, None)) is future)
        later(lambda: type(step(side.wait([future], timeout=HOUR))).__name__)
        later(lambda: step(side.timeout(1).__aenter__()))
        later(lambda: step(side.timeout(None).__aenter__()))
        later(lambda: step(group.__aenter__()))
        later(lambda: step(side.Barrier(1).wait()))
        later(side.current_task)
        later(lambda: side.gather(future).cancel())
        later(lambda: step(side.to_thread(int)) and None)
        await asyncio.sleep(0.01)
    return outcomes


@cases(
    objects_of_another_loop,
    futures_of_another_loop,
    outside_of_tasks,
)
def test_misuse_of_loops(case: Case, debug: bool) -> None:
    assert "Error" in same_on_all_sides(case, debug)


def without_a_loop(side: Side) -> Any:
    """What needs a running loop, where none runs and none is set."""
    coroutine = nothing()
    calls: list[Callable[[], Any]] = [
        lambda: step(side.sleep(0)),
        lambda: step(side.sleep(1)),
        lambda: step(side.sleep(-1)),
        lambda: step(side.wait_for(coroutine, 1)),
        lambda: step(side.wait_for(coroutine, None)),
        lambda: step(side.wait({1})),
        lambda: step(side.wait([])),
        lambda: step(side.Event().wait()),
        lambda: step(side.Lock().acquire()),
        lambda: step(side.Queue().get()),
        lambda: step(side.Queue().join()),
        lambda: step(side.Barrier(2).wait()),
        lambda: step(side.Barrier(1).wait()),
        lambda: step(side.Semaphore(0).acquire()),
        lambda: step(side.TaskGroup().__aenter__()),
        lambda: step(side.timeout_at(None).__aenter__()),
        lambda: step(side.to_thread(int)),
        lambda: side.timeout(None),
        lambda: side.create_task(coroutine),
        lambda: side.current_task(),
        lambda: side.all_tasks(),
        lambda: side.get_running_loop(),
        lambda: side.run_coroutine_threadsafe(1, None),
        lambda: side.TaskGroup().create_task(coroutine),
    ]
    outcomes = [tried(call) for call in calls]
    coroutine.close()
    return outcomes


def test_without_a_loop() -> None:
    asyncio.set_event_loop(None)
    expected = without_a_loop(SIDES["asyncio"])
    for name, side in SIDES.items():
        assert without_a_loop(side) == expected, name


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
def test_from_another_thread(debug: bool) -> None:
    """Only debug mode looks at the thread; what it says is a RuntimeError of the method."""

    async def main(side: Side) -> Any:
        loop = asyncio.get_running_loop()
        outcomes: list[Any] = []
        future = loop.create_future()
        future.add_done_callback(lambda _: None)

        def elsewhere() -> None:
            outcomes.append(tried(lambda: loop.call_soon(int).cancel()))
            outcomes.append(tried(lambda: loop.call_later(HOUR, print).cancel()))
            outcomes.append(tried(lambda: loop.call_at(HOUR, print).cancel()))
            outcomes.append(tried(future.set_result, 1))
            outcomes.append(tried(side.current_task))
            outcomes.append(tried(side.current_task, loop))
            outcomes.append(tried(lambda: step(side.sleep(0.1))))
            outcomes.append(tried(side.get_running_loop))
            outcomes.append(tried(lambda: loop.run_until_complete(nothing())))
            outcomes.append(tried(lambda: loop.close()))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return outcomes

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = SIDES["asyncio"].run(main(SIDES["asyncio"]), debug=debug)
        assert ("Non-thread-safe operation" in str(expected)) is debug
        for name, side in SIDES.items():
            assert side.run(main(side), debug=debug) == expected, name
