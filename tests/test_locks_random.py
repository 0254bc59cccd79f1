"""Random programs over locks and queues: tasks, cancellations and timeouts in turns of the loop, with asyncio's classes and
with ioxide's (primitives.py). Each seed is one program; its log must be the same everywhere."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from primitives import agree, ended, told, turns


class World:
    """The primitives of one program, and what happened to them."""

    def __init__(self, classes: Any, random_numbers: random.Random) -> None:
        self.random = random_numbers
        self.log: list[Any] = []
        lock = classes.Lock()
        self.blocks = [lock, classes.Lock(), classes.Semaphore(2), classes.BoundedSemaphore(1)]
        self.conditions = [classes.Condition(lock), classes.Condition()]
        self.event = classes.Event()
        self.barrier = classes.Barrier(3)
        self.queues = [classes.Queue(2), classes.Queue(), classes.PriorityQueue(1), classes.LifoQueue(2)]
        self.items = 0

    async def act(self, name: str) -> None:
        """One random thing that may wait."""
        choice = self.random.randrange(10)
        which = self.random.randrange(4)
        if choice < 3:
            async with self.blocks[which]:
                self.log.append((name, "in", which))
                await turns(self.random.randrange(3))
        elif choice == 3:
            async with self.conditions[which % 2] as nothing:
                self.log.append((name, "waits", which % 2, nothing, await self.conditions[which % 2].wait()))
        elif choice == 4:
            async with self.conditions[which % 2]:
                self.conditions[which % 2].notify(which)
                self.log.append((name, "notifies", which))
        elif choice == 5:
            self.log.append((name, "event", await self.event.wait()))
        elif choice == 6:
            self.event.set()
            await turns(which % 2)
            self.event.clear()
        elif choice == 7:
            self.log.append((name, "barrier", await self.barrier.wait()))
        elif choice == 8:
            self.items += 1
            await self.queues[which].put(self.items)
            self.log.append((name, "put", which, str(self.queues[which])))
        else:
            item = await self.queues[which].get()
            self.queues[which].task_done()
            self.log.append((name, "got", which, item, str(self.queues[which])))

    async def live(self, name: str) -> str:
        for _ in range(self.random.randrange(1, 6)):
            try:
                await self.act(name)
            except asyncio.CancelledError as error:
                self.log.append((name, "cancelled", error.args))
                if self.random.randrange(3) == 0:
                    raise
            except Exception as error:
                self.log.append((name, told(error)))
        return name

    def shown(self) -> list[str]:
        primitives = [*self.blocks, *self.conditions, self.event, self.barrier, *self.queues]
        return [repr(primitive) for primitive in primitives]


@pytest.mark.parametrize("seed", range(150))
def test_random_program(seed: int) -> None:
    async def program(classes: Any) -> Any:
        numbers = random.Random(seed)
        world = World(classes, numbers)
        tasks = [asyncio.create_task(world.live(f"task {number}")) for number in range(8)]
        for turn in range(40):
            await turns(1)
            if numbers.randrange(4) == 0:
                tasks[numbers.randrange(8)].cancel(f"turn {turn}")
            if numbers.randrange(20) == 0:
                await (world.barrier.reset() if numbers.randrange(2) else world.barrier.abort())
            if numbers.randrange(5) == 0:
                world.log.append(world.shown())
        for _ in range(10):
            for task in tasks:
                task.cancel("the end")
            await turns(3)
        return [[await ended(task) for task in tasks], world.log, world.shown()]

    agree(program)
