"""The rows of tasks.py: small programs that do nothing but schedule. Each is one row of its table.

How they are timed belongs to worker.py. They call asyncio's own functions, as every program does: what `asyncio.sleep` is,
the contender has decided before.

Invariants:
 1. A row does exactly `operations` operations, by `batch` tasks at once, and leaves nothing scheduled behind.
"""

from __future__ import annotations

import asyncio

from worker import Row


async def nothing() -> None:
    return None


async def sleep_zero(operations: int, batch: int) -> None:
    """The tasks give way to each other: the price of one step."""

    async def sleeper() -> None:
        for _ in range(operations // batch):
            await asyncio.sleep(0)

    await asyncio.gather(*[sleeper() for _ in range(batch)])


async def timed_sleeps(operations: int, batch: int) -> None:
    """A hundred of the sleeps end in each millisecond."""
    for _ in range(operations // batch):
        await asyncio.gather(*[asyncio.sleep(0.001 + index / 100_000) for index in range(batch)])


async def spawn_and_gather(operations: int, batch: int) -> None:
    for _ in range(operations // batch):
        await asyncio.gather(*[nothing() for _ in range(batch)])


async def create_task_and_await(operations: int, batch: int) -> None:
    for _ in range(operations):
        await asyncio.create_task(nothing())


async def call_soon_chain(operations: int, batch: int) -> None:
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


async def future_wait(operations: int, batch: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(operations):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future


async def call_later_and_cancel(operations: int, batch: int) -> None:
    """A batch, then a turn of the loop: what a loop leaves lying about until later counts as well."""
    loop = asyncio.get_running_loop()
    for _ in range(operations // batch):
        for _ in range(batch):
            loop.call_later(60, nothing).cancel()
        await asyncio.sleep(0)


async def call_later_firing(operations: int, batch: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(operations // batch):
        finished = loop.create_future()
        left = batch

        def callback() -> None:
            nonlocal left
            left -= 1
            if not left:
                finished.set_result(None)

        for index in range(batch):
            loop.call_later(0.001 + index / 100_000, callback)
        await finished


async def sleep_zero_alone(operations: int, batch: int) -> None:
    """One task: every sleep is a turn of the loop, with whatever a turn costs."""
    for _ in range(operations):
        await asyncio.sleep(0)


async def contended_lock(operations: int, batch: int) -> None:
    """The tasks want one lock and give way to each other while they hold it."""
    lock = asyncio.Lock()

    async def contender() -> None:
        for _ in range(operations // batch):
            async with lock:
                await asyncio.sleep(0)

    await asyncio.gather(*[contender() for _ in range(batch)])


async def semaphore(operations: int, batch: int) -> None:
    """As the contended lock, with ten places."""
    places = asyncio.Semaphore(10)

    async def contender() -> None:
        for _ in range(operations // batch):
            async with places:
                await asyncio.sleep(0)

    await asyncio.gather(*[contender() for _ in range(batch)])


async def event_fan_out(operations: int, batch: int) -> None:
    """The tasks wait for the same event; one operation is one task woken. They all wait for the next before it is set."""
    events = [asyncio.Event() for _ in range(operations // batch)]

    async def waiter() -> None:
        for event in events:
            await event.wait()

    waiters = [asyncio.create_task(waiter()) for _ in range(batch)]
    await asyncio.sleep(0)
    for event in events:
        event.set()
        await asyncio.sleep(0)
    await asyncio.gather(*waiters)


async def bounded_queue(operations: int, batch: int) -> None:
    """Eight places: producer and consumer take turns every eight items."""
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=8)

    async def producer() -> None:
        for item in range(operations):
            await queue.put(item)

    async def consumer() -> None:
        for _ in range(operations):
            await queue.get()

    await asyncio.gather(producer(), consumer())


async def task_group(operations: int, batch: int) -> None:
    for _ in range(operations // batch):
        async with asyncio.TaskGroup() as group:
            for _ in range(batch):
                group.create_task(nothing())


async def wait_for(operations: int, batch: int) -> None:
    """The future is not done when the wait begins, so each operation arms and disarms a deadline and really waits."""
    loop = asyncio.get_running_loop()
    for _ in range(operations):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await asyncio.wait_for(future, 60)


async def timeout(operations: int, batch: int) -> None:
    """As wait_for, by `async with`."""
    loop = asyncio.get_running_loop()
    for _ in range(operations):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        async with asyncio.timeout(60):
            await future


async def as_completed(operations: int, batch: int) -> None:
    for _ in range(operations // batch):
        for earliest in asyncio.as_completed([nothing() for _ in range(batch)]):
            await earliest


async def cancelled_sleepers(operations: int, batch: int) -> None:
    """The tasks fall asleep for an hour and are cancelled."""
    for _ in range(operations // batch):
        tasks = [asyncio.create_task(asyncio.sleep(3600)) for _ in range(batch)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def to_thread(operations: int, batch: int) -> None:
    for _ in range(operations):
        await asyncio.to_thread(int)


ROWS: dict[str, Row] = {
    "sleep(0)": Row(sleep_zero, 30_000, goal=4, loop_goal=2),
    "sleep(0) of one task": Row(sleep_zero_alone, 20_000, batched=False, goal=2, loop_goal=2),
    "gather of timed sleeps": Row(timed_sleeps, 5_000, timed=True, goal=7),
    "spawn+gather": Row(spawn_and_gather, goal=10, largest_goal=6, loop_goal=2),
    "create_task+await": Row(create_task_and_await, batched=False, goal=4),
    "call_soon chain": Row(call_soon_chain, 20_000, batched=False, goal=2, loop_goal=2),
    "future wait": Row(future_wait, batched=False),
    "call_later+cancel": Row(call_later_and_cancel, 20_000),
    "call_later firing": Row(call_later_firing, timed=True),
    "contended lock": Row(contended_lock, goal=6),
    "semaphore": Row(semaphore, goal=6, loop_goal=None),
    "event fan-out": Row(event_fan_out, 20_000, goal=5),
    "bounded queue": Row(bounded_queue, 20_000, batched=False, goal=5),
    "task group": Row(task_group, goal=7, loop_goal=2),
    "wait_for": Row(wait_for, 5_000, batched=False, goal=8),
    "timeout": Row(timeout, 5_000, batched=False, goal=5, loop_goal=None),
    "as_completed": Row(as_completed, 5_000, goal=4, loop_goal=None),
    "cancelled sleepers": Row(cancelled_sleepers, 5_000, goal=5, loop_goal=None),
    "to_thread": Row(to_thread, 2_000, batched=False, goal=1.5, loop_goal=None),
}
