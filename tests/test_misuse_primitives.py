"""Misuse of locks and queues: impossible sizes, `release` without `acquire`, the wrong moment.

Leaves to others: misuse of tasks (test_misuse_tasks.py), the wrong loop or thread (test_misuse_loops.py).
"""

from __future__ import annotations

from typing import Any

from misuse import Case, awaited, cases, plain, same_on_all_sides, step, tried
from sides import Side

NUMBERS = (-1, -(1 << 70), 1 << 70, 2.5, -0.5, float("nan"), float("inf"), None, "1", True, b"1", ())


async def sizes_of_locks(side: Side) -> Any:
    outcomes = []
    for number in NUMBERS:
        for name in ("Semaphore", "BoundedSemaphore"):
            outcomes.append(tried(getattr(side, name), number))
        outcomes.append(tried(side.Barrier, number))
    for call in (side.Lock, side.Event, side.Condition, side.Semaphore, side.Barrier):
        outcomes.append(tried(call, nonsense=1))
    outcomes.append(
        [tried(side.Lock, 1), tried(side.Event, 1), tried(side.Condition, 1), tried(side.Barrier), tried(side.Barrier, 1, 2)]
    )
    return outcomes


async def strange_values_of_semaphores(side: Side) -> Any:
    outcomes: list[Any] = []
    for number in (0, 1, 1.5, 0.5, True, 1 << 70, float("nan"), float("inf")):
        for name in ("Semaphore", "BoundedSemaphore"):
            semaphore = getattr(side, name)(number)
            outcomes += [plain(semaphore), semaphore.locked(), await awaited(semaphore.acquire), plain(semaphore)]
            outcomes += [tried(semaphore.release), tried(semaphore.release), plain(semaphore)]
    return outcomes


async def releases_without_acquire(side: Side) -> Any:
    outcomes: list[Any] = []
    for name in ("Lock", "Condition", "Semaphore", "BoundedSemaphore"):
        lock = getattr(side, name)()
        outcomes += [tried(lock.release), tried(lock.release), plain(lock), await awaited(lock.acquire)]
        outcomes += [tried(lock.release), tried(lock.release), plain(lock)]
        outcomes += [await awaited(lock.__aexit__, None, None, None), await awaited(lock.__aexit__)]
        outcomes += [tried(lambda lock=lock: lock.__enter__()), tried(lambda lock=lock: iter(lock)), tried(step, lock)]
    return outcomes


async def conditions_without_their_lock(side: Side) -> Any:
    outcomes: list[Any] = []
    condition = side.Condition()
    outcomes += [await awaited(condition.wait), await awaited(condition.wait_for, lambda: False)]
    outcomes += [await awaited(condition.wait_for, lambda: True), await awaited(condition.wait_for, None)]
    outcomes += [tried(condition.notify), tried(condition.notify_all), tried(condition.notify, -1), tried(condition.notify, "1")]
    async with condition:
        for number in (-1, 0, 1 << 70, 2.5, None, "1"):
            outcomes.append(tried(condition.notify, number))
        outcomes.append(await awaited(condition.wait_for, 5))
    for lock in (None, 5, "lock", side.Event(), side.Lock, side.Semaphore(), side.Condition()):
        outcomes.append(tried(lambda lock=lock: bool(side.Condition(lock))))
    return outcomes


async def misuse_of_barriers(side: Side) -> Any:
    outcomes: list[Any] = []
    barrier = side.Barrier(2)
    outcomes += [await awaited(barrier.__aexit__, None, None, None), await awaited(barrier.__aexit__)]
    outcomes += [plain(barrier), await awaited(barrier.reset), await awaited(barrier.abort), plain(barrier)]
    outcomes += [await awaited(barrier.wait), await awaited(barrier.__aenter__), plain(barrier)]
    outcomes += [await awaited(barrier.abort), await awaited(barrier.reset), plain(barrier), await awaited(barrier.wait)]
    outcomes += [barrier.parties, barrier.n_waiting, barrier.broken, await awaited(barrier.wait, 1)]
    single = side.Barrier(True)
    return [*outcomes, await awaited(single.wait), await awaited(single.wait), plain(single), tried(lambda: single.__enter__())]


async def sizes_of_queues(side: Side) -> Any:
    outcomes: list[Any] = []
    for number in NUMBERS:
        for name in ("Queue", "LifoQueue", "PriorityQueue"):
            queue = tried(getattr(side, name), number)
            outcomes.append(queue)
            if number not in (None, "1", b"1", ()):
                queue = getattr(side, name)(number)
                outcomes += [tried(queue.put_nowait, 1), tried(queue.put_nowait, 2), tried(queue.put_nowait, 3)]
                outcomes += [queue.full(), queue.empty(), queue.qsize(), plain(queue.maxsize), plain(queue)]
                outcomes += [await awaited(queue.put, 4), await awaited(queue.put), tried(queue.put_nowait)]
            else:
                outcomes += [await awaited(lambda name=name, number=number: odd_queue(getattr(side, name), number))]
    return outcomes


async def odd_queue(queue_class: Any, number: Any) -> Any:
    queue = queue_class(number)
    return [tried(queue.full), tried(queue.put_nowait, 1), await awaited(queue.put, 1), tried(queue.get_nowait)]


async def misuse_of_queues(side: Side) -> Any:
    outcomes: list[Any] = []
    for name in ("Queue", "LifoQueue", "PriorityQueue"):
        queue = getattr(side, name)()
        outcomes += [tried(queue.task_done), tried(queue.get_nowait), await awaited(queue.join)]
        queue.put_nowait(1)
        outcomes += [tried(queue.task_done), tried(queue.task_done), tried(queue.get_nowait), tried(queue.task_done)]
        outcomes += [await awaited(queue.get, 1), await awaited(queue.join, 1), tried(queue.task_done, 1)[0], tried(len, queue)]
        outcomes += [tried(iter, queue), tried(bool, queue), tried(setattr, queue, "maxsize", 3)[0]]
    priority = side.PriorityQueue()
    outcomes += [tried(priority.put_nowait, (1, object)), tried(priority.put_nowait, "text"), tried(priority.get_nowait)]
    return outcomes


@cases(
    sizes_of_locks,
    strange_values_of_semaphores,
    releases_without_acquire,
    conditions_without_their_lock,
    misuse_of_barriers,
    sizes_of_queues,
    misuse_of_queues,
)
def test_misuse_of_primitives(case: Case, debug: bool) -> None:
    assert "Error" in same_on_all_sides(case, debug)
