"""Random programs of tasks, futures, cancellations, timers, locks, queues and callbacks do the same on both loops, and with
asyncio's names as with ioxide's.

A program is made from a seed and logs what happens in which order. Time is kept out of it: programs wait by turns of the
loop (`sleep(0)`) and by futures, so that the order is the loop's doing alone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import pytest

import ioxide

SEEDS_A_TEST = 100


class Program:
    """One run of the program that `seed` stands for; `log` is what happened."""

    def __init__(self, seed: int, names: Any) -> None:
        self.random = random.Random(seed)
        self.names = names
        self.log: list[str] = []
        self.tasks: list[asyncio.Task[object]] = []
        self.futures: list[asyncio.Future[object]] = []
        self.lock = names.Lock()
        self.event = names.Event()
        self.queue: asyncio.Queue[int] = names.Queue(maxsize=2)
        self.budget = 60

    def note(self, who: str, what: object) -> None:
        self.log.append(f"{who}: {what}")

    async def act(self, who: str, depth: int) -> object:
        """A few random actions, each of which may raise into the next."""
        try:
            for number in range(self.random.randrange(1, 5)):
                if self.budget <= 0:
                    break
                self.budget -= 1
                action = self.random.choice(self.ACTIONS)
                name = action.__name__
                try:
                    result = await action(self, who, depth)
                    self.note(who, f"{number} {name} -> {result!r}")
                except (ValueError, TimeoutError, asyncio.QueueFull, asyncio.QueueEmpty) as error:
                    self.note(who, f"{number} {name} raised {error!r}")
        except asyncio.CancelledError as error:
            self.note(who, f"cancelled {error.args!r}")
            if self.random.random() < 0.3:
                await self.names.sleep(0)
                self.note(who, "cleaned up")
            if self.random.random() < 0.2:
                return "swallowed"
            raise
        finally:
            self.note(who, "done")
        if self.random.random() < 0.15:
            raise ValueError(who)
        return who

    def spawn(self, who: str, depth: int) -> asyncio.Task[object]:
        task = asyncio.get_running_loop().create_task(self.act(who, depth + 1), name=who)
        task.add_done_callback(lambda done: self.note("callback", f"{done.get_name()} {describe(done)}"))
        self.tasks.append(task)
        return task

    async def yield_once(self, who: str, depth: int) -> object:
        return await self.names.sleep(0, "yielded")

    async def start(self, who: str, depth: int) -> object:
        if depth < 3:
            self.spawn(f"{who}.{len(self.tasks)}", depth)
        return len(self.tasks)

    async def start_and_await(self, who: str, depth: int) -> object:
        if depth >= 3:
            return None
        return await self.spawn(f"{who}.{len(self.tasks)}", depth)

    async def gather(self, who: str, depth: int) -> object:
        if depth >= 3:
            return None
        children = [self.act(f"{who}.g{index}", depth + 1) for index in range(self.random.randrange(1, 4))]
        results = await self.names.gather(*children, return_exceptions=self.random.random() < 0.7)
        return [repr(result) for result in results]

    async def cancel_one(self, who: str, depth: int) -> object:
        if not self.tasks:
            return None
        task = self.random.choice(self.tasks)
        return task.get_name(), task.cancel(*self.random.choice([(), ("because",)])), task.cancelling()

    async def await_future(self, who: str, depth: int) -> object:
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.futures.append(future)
        return await future

    async def finish_future(self, who: str, depth: int) -> object:
        waiting = [future for future in self.futures if not future.done()]
        if not waiting:
            return None
        future = self.random.choice(waiting)
        match self.random.randrange(4):
            case 0:
                future.set_exception(ValueError("told"))
            case 1:
                future.cancel("given up")
            case _:
                future.set_result(who)
        return describe(future)

    async def locked(self, who: str, depth: int) -> object:
        async with self.lock:
            self.note(who, "locked")
            await self.names.sleep(0)
        return "unlocked"

    async def wait_event(self, who: str, depth: int) -> object:
        self.event.clear()
        asyncio.get_running_loop().call_soon(self.event.set)
        return await self.event.wait()

    async def put(self, who: str, depth: int) -> object:
        self.queue.put_nowait(len(self.log))
        return self.queue.qsize()

    async def get(self, who: str, depth: int) -> object:
        return self.queue.get_nowait() is not None

    async def time_out(self, who: str, depth: int) -> object:
        return await self.names.wait_for(self.yield_once(who, depth), self.random.choice([None, 0, 60]))

    async def shielded(self, who: str, depth: int) -> object:
        if depth >= 3:
            return None
        return await self.names.shield(self.spawn(f"{who}.s{len(self.tasks)}", depth))

    async def call_soon(self, who: str, depth: int) -> object:
        handle = asyncio.get_running_loop().call_soon(self.note, who, "called soon")
        if self.random.random() < 0.3:
            handle.cancel()
        return handle.cancelled()

    async def uncancel(self, who: str, depth: int) -> object:
        task = self.names.current_task()
        assert task is not None
        return task.uncancel()

    ACTIONS: ClassVar[list[Callable[[Program, str, int], Awaitable[object]]]] = [
        yield_once, yield_once, start, start, start_and_await, gather, cancel_one, await_future, finish_future,
        finish_future, locked, wait_event, put, get, time_out, shielded, call_soon, uncancel,
    ]  # fmt: skip

    async def main(self) -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, report: self.note("handler", (report["message"], repr(report.get("exception"))))
        )
        for index in range(3):
            self.spawn(f"t{index}", 0)
        for turn in range(200):
            await self.names.sleep(0)
            if turn % 10 == 9:
                for future in self.futures:
                    if not future.done():
                        future.set_result("at last")
            if all(task.done() for task in self.tasks):
                break
        for task in self.tasks:
            task.cancel("the end")
        await self.names.gather(*self.tasks, return_exceptions=True)
        left = self.names.all_tasks() - {self.names.current_task()}
        # Numbers of unnamed tasks go on from run to run.
        self.log.append(f"left: {sorted(task.get_name().partition('Task-')[0] for task in left)}")


def describe(future: asyncio.Future[object]) -> str:
    if not future.done():
        return "pending"
    if future.cancelled():
        return "cancelled"
    return f"raised {future.exception()!r}" if future.exception() else f"returned {future.result()!r}"


def run(seed: int, factory: Callable[[], asyncio.AbstractEventLoop], names: Any = asyncio) -> list[str]:
    with asyncio.Runner(loop_factory=factory) as runner:

        async def main() -> list[str]:
            program = Program(seed, names)
            await program.main()
            return program.log

        return runner.run(main())


@pytest.mark.parametrize("block", range(5))
def test_a_random_program_does_the_same_on_both_loops(block: int) -> None:
    for seed in range(block * SEEDS_A_TEST, (block + 1) * SEEDS_A_TEST):
        assert run(seed, ioxide.new_event_loop) == run(seed, asyncio.SelectorEventLoop), f"seed {seed}"


@pytest.mark.parametrize("block", range(5))
def test_a_random_program_does_the_same_with_the_names_of_both(block: int) -> None:
    for seed in range(block * SEEDS_A_TEST, (block + 1) * SEEDS_A_TEST):
        expected = run(seed, asyncio.SelectorEventLoop)
        assert run(seed, ioxide.new_event_loop, ioxide) == expected, f"seed {seed}"
        assert run(seed, asyncio.SelectorEventLoop, ioxide) == expected, f"seed {seed} on asyncio's loop"
