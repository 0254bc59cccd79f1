"""The workloads of tasks.py: small programs that do nothing but schedule. Each is one row of its table.

How they are timed belongs to tasks.py. They call asyncio's own functions, as every program does, so a row shows what a
loop, its Future and its Task are worth below them.

Invariants:
 1. A row does exactly `operations` operations and leaves nothing scheduled behind.
 2. A row that sleeps is judged by CPU time only (`timed`): its wall time is the sleep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    operations: int
    run: Callable[[int], Awaitable[None]]
    # How many times faster than uvloop ioxide promises to be.
    goal: float = 1.3
    timed: bool = False


async def nothing() -> None:
    return None


async def sleep_zero_alone(operations: int) -> None:
    """One task: every sleep is a turn of the loop, with whatever a turn costs."""
    for _ in range(operations):
        await asyncio.sleep(0)


async def sleep_zero(operations: int) -> None:
    """100 tasks: a turn is shared by 100 sleeps, so this is the price of one task step."""
    await asyncio.gather(*[sleep_zero_alone(operations // 100) for _ in range(100)])


async def timed_sleeps(operations: int) -> None:
    """1000 sleeps at a time, ending over ten milliseconds: several timers are due in each turn, not all at once."""
    for _ in range(operations // 1000):
        await asyncio.gather(*[asyncio.sleep(0.001 + index % 100 / 10_000) for index in range(1000)])


def spawn_and_gather(batch: int) -> Callable[[int], Awaitable[None]]:
    async def run(operations: int) -> None:
        for _ in range(operations // batch):
            await asyncio.gather(*[nothing() for _ in range(batch)])

    return run


async def create_task_and_await(operations: int) -> None:
    for _ in range(operations):
        await asyncio.create_task(nothing())


async def call_soon_chain(operations: int) -> None:
    """Each callback schedules the next one, so every turn of the loop runs one callback."""
    loop = asyncio.get_running_loop()
    finished = loop.create_future()

    def callback(left: int) -> None:
        if left:
            loop.call_soon(callback, left - 1)
        else:
            finished.set_result(None)

    loop.call_soon(callback, operations - 1)
    await finished


async def future_wait(operations: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(operations):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future


async def contended_lock(operations: int) -> None:
    """100 tasks want one lock and give way to each other while they hold it."""
    lock = asyncio.Lock()

    async def contender(times: int) -> None:
        for _ in range(times):
            async with lock:
                await asyncio.sleep(0)

    await asyncio.gather(*[contender(operations // 100) for _ in range(100)])


async def bounded_queue(operations: int) -> None:
    """Eight places: the tasks take turns every eight items. With more, the row measures asyncio's Python queue alone."""
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=8)

    async def producer() -> None:
        for item in range(operations):
            await queue.put(item)

    async def consumer() -> None:
        for _ in range(operations):
            await queue.get()

    await asyncio.gather(producer(), consumer())


async def task_group(operations: int) -> None:
    for _ in range(operations // 100):
        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(nothing())


async def wait_for(operations: int) -> None:
    """The future is not done yet when the wait begins, so each operation arms and disarms a timer and really waits."""
    loop = asyncio.get_running_loop()
    for _ in range(operations):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await asyncio.wait_for(future, 60)


async def call_later_and_cancel(operations: int) -> None:
    """A thousand at a time, then a turn of the loop: what a loop leaves lying about until later counts as well."""
    loop = asyncio.get_running_loop()
    for _ in range(operations // 1000):
        for _ in range(1000):
            loop.call_later(60, nothing).cancel()
        await asyncio.sleep(0)


async def call_later_firing(operations: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(operations // 1000):
        finished = loop.create_future()
        left = 1000

        def callback() -> None:
            nonlocal left
            left -= 1
            if not left:
                finished.set_result(None)

        for index in range(1000):
            loop.call_later(0.001 + index % 100 / 10_000, callback)
        await finished


async def event_fan_out(operations: int) -> None:
    """100 tasks wait for the same event; one operation is one task woken. They all wait for the next before it is set."""
    events = [asyncio.Event() for _ in range(operations // 100)]

    async def waiter() -> None:
        for event in events:
            await event.wait()

    waiters = [asyncio.create_task(waiter()) for _ in range(100)]
    await asyncio.sleep(0)
    for event in events:
        event.set()
        await asyncio.sleep(0)
    await asyncio.gather(*waiters)


ROWS: dict[str, Row] = {
    "sleep(0)": Row(30_000, sleep_zero, goal=2),
    "sleep(0) of one task": Row(20_000, sleep_zero_alone, goal=2),
    "gather of timed sleeps (CPU)": Row(5_000, timed_sleeps, timed=True),
    "spawn+gather of 100": Row(10_000, spawn_and_gather(100), goal=2),
    "spawn+gather of 1000": Row(10_000, spawn_and_gather(1000), goal=2),
    "spawn+gather of 5000": Row(10_000, spawn_and_gather(5000), goal=2),
    "create_task+await": Row(10_000, create_task_and_await),
    "call_soon chain": Row(20_000, call_soon_chain, goal=2),
    "future wait": Row(10_000, future_wait),
    "contended lock": Row(10_000, contended_lock),
    "bounded queue": Row(20_000, bounded_queue),
    "task group": Row(10_000, task_group, goal=2),
    "wait_for": Row(5_000, wait_for),
    "call_later+cancel": Row(20_000, call_later_and_cancel),
    "call_later firing (CPU)": Row(10_000, call_later_firing, timed=True),
    "event fan-out": Row(20_000, event_fan_out),
}
