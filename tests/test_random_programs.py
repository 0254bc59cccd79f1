"""Random programs of tasks, futures, cancellations, timers, locks, queues, timeouts, groups and callbacks do the same on
asyncio and on ioxide: with ioxide's loop alone, and with its names as well.

A program is made of a tape of choices and logs what happens in which order. Time is kept out of it: programs wait by
turns of the loop (`sleep(0)`), by futures and by deadlines that have passed or never come, so that the order is the
loop's doing alone. hypothesis writes the tapes and shortens the one that shows a difference.

The same programs run each time; IOXIDE_RANDOM_PROGRAMS=10000 runs so many new ones.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

import ioxide
from outcomes import shown

PROGRAMS = int(os.environ.get("IOXIDE_RANDOM_PROGRAMS", "300"))
ARE_NEW = "IOXIDE_RANDOM_PROGRAMS" in os.environ
HOUR = 3600.0
_Item = TypeVar("_Item")


class Tape:
    """Choices, read one after another; behind the end everything is the first of what there is to choose from."""

    def __init__(self, choices: Sequence[int]) -> None:
        self.choices = iter(choices)

    def below(self, limit: int) -> int:
        return next(self.choices, 0) % limit

    def one_of(self, items: Sequence[_Item]) -> _Item:
        return items[self.below(len(items))]

    def chance(self, percent: int) -> bool:
        return self.below(100) >= 100 - percent


class Program:
    """One run of the program on a tape, with the names of asyncio or of ioxide; `log` is what happened."""

    def __init__(self, choices: Sequence[int], names: Any) -> None:
        self.tape = Tape(choices)
        self.names = names
        self.log: list[str] = []
        self.tasks: list[asyncio.Task[object]] = []
        self.futures: list[asyncio.Future[object]] = []
        self.lock = names.Lock()
        self.event = names.Event()
        self.condition = names.Condition()
        self.semaphore = names.Semaphore(2)
        self.queue: asyncio.Queue[int] = names.Queue(maxsize=2)
        self.budget = 60

    def report(self, _loop: asyncio.AbstractEventLoop, report: dict[str, Any]) -> None:
        if report["message"] != LEFT_TO_A_TRACEBACK:
            self.note("handler", (report["message"], repr(report.get("exception"))))

    def note(self, who: str, what: object) -> None:
        self.log.append(f"{who}: {what}")

    async def act(self, who: str, depth: int) -> object:
        """A few random actions, each of which may raise into the next."""
        try:
            for number in range(1 + self.tape.below(4)):
                if self.budget <= 0:
                    break
                self.budget -= 1
                action = self.tape.one_of(self.ACTIONS)
                name = action.__name__
                try:
                    result = await action(self, who, depth)
                    self.note(who, f"{number} {name} -> {result!r}")
                except (ValueError, TimeoutError, asyncio.QueueFull, asyncio.QueueEmpty, ExceptionGroup) as error:
                    self.note(who, f"{number} {name} raised {shown(error)}")
        except asyncio.CancelledError as error:
            self.note(who, f"cancelled {error.args!r}")
            if self.tape.chance(30):
                await self.names.sleep(0)
                self.note(who, "cleaned up")
            if self.tape.chance(20):
                return "swallowed"
            raise
        finally:
            self.note(who, "done")
        if self.tape.chance(15):
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
        children = [self.act(f"{who}.g{index}", depth + 1) for index in range(1 + self.tape.below(3))]
        results = await self.names.gather(*children, return_exceptions=self.tape.chance(70))
        return [repr(result) for result in results]

    async def cancel_one(self, who: str, depth: int) -> object:
        if not self.tasks:
            return None
        task = self.tape.one_of(self.tasks)
        return task.get_name(), task.cancel(*self.tape.one_of([(), ("because",)])), task.cancelling()

    async def await_future(self, who: str, depth: int) -> object:
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.futures.append(future)
        return await future

    async def finish_future(self, who: str, depth: int) -> object:
        waiting = [future for future in self.futures if not future.done()]
        if not waiting:
            return None
        future = self.tape.one_of(waiting)
        match self.tape.below(4):
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
        return await self.names.wait_for(self.yield_once(who, depth), self.tape.one_of([None, 0, 60]))

    async def shielded(self, who: str, depth: int) -> object:
        if depth >= 3:
            return None
        return await self.names.shield(self.spawn(f"{who}.s{len(self.tasks)}", depth))

    async def call_soon(self, who: str, depth: int) -> object:
        handle = asyncio.get_running_loop().call_soon(self.note, who, "called soon")
        if self.tape.chance(30):
            handle.cancel()
        return handle.cancelled()

    async def uncancel(self, who: str, depth: int) -> object:
        task = self.names.current_task()
        assert task is not None
        return task.uncancel()

    async def time_limit(self, who: str, depth: int) -> object:
        async with self.names.timeout(self.tape.one_of([None, 0, -1, HOUR])) as timeout:
            if self.tape.chance(30):
                timeout.reschedule(self.tape.one_of([None, 0]))
            await self.tape.one_of(self.WAITS)(self, who, depth)
        return timeout.expired()

    async def group(self, who: str, depth: int) -> object:
        if depth >= 3:
            return None
        # One task: a group cancels several in the order of a set, which is another one in every run.
        async with self.names.TaskGroup() as group:
            name = f"{who}.{len(self.tasks)}"
            self.tasks.append(group.create_task(self.act(name, depth + 1), name=name))
            await self.tape.one_of(self.WAITS)(self, who, depth)
        return repr(group._tasks)

    async def limited(self, who: str, depth: int) -> object:
        async with self.semaphore:
            await self.names.sleep(0)
        return self.semaphore.locked()

    async def notified(self, who: str, depth: int) -> object:
        async with self.condition:
            if self.tape.chance(50):
                self.condition.notify(1 + self.tape.below(2))
                return "notified others"
            return await self.condition.wait()

    async def get_or_wait(self, who: str, depth: int) -> object:
        return await self.queue.get() is not None

    async def put_or_wait(self, who: str, depth: int) -> object:
        await self.queue.put(len(self.log))
        return self.queue.full()

    async def first_of_several(self, who: str, depth: int) -> object:
        if depth >= 3:
            return None
        children = [self.spawn(f"{who}.w{index}", depth) for index in range(1 + self.tape.below(3))]
        how = self.tape.one_of([asyncio.ALL_COMPLETED, asyncio.FIRST_COMPLETED, asyncio.FIRST_EXCEPTION])
        done, pending = await self.names.wait(children, return_when=how, timeout=self.tape.one_of([None, 0]))
        return sorted(task.get_name() for task in done), sorted(task.get_name() for task in pending)

    async def in_their_order(self, who: str, depth: int) -> object:
        if depth >= 3:
            return None
        # Tasks, not coroutines: of those asyncio makes tasks in the order of a set.
        children = [self.spawn(f"{who}.c{index}", depth) for index in range(1 + self.tape.below(3))]
        seen = []
        for earliest in self.names.as_completed(children, timeout=self.tape.one_of([None, None, 0, HOUR])):
            try:
                seen.append(await earliest)
            except (ValueError, TimeoutError) as error:
                seen.append(repr(error))
        return seen

    async def shield_and_give_up(self, who: str, depth: int) -> object:
        if depth >= 3:
            return None
        outer = self.names.shield(self.spawn(f"{who}.o{len(self.tasks)}", depth))
        await self.tape.one_of(self.WAITS)(self, who, depth)
        outer.cancel("outer")
        return describe(outer)

    async def gather_what_is_shielded(self, who: str, depth: int) -> object:
        if depth >= 3:
            return None
        children = [self.names.shield(self.spawn(f"{who}.h{index}", depth)) for index in range(1 + self.tape.below(2))]
        return await self.names.wait_for(self.names.gather(*children, return_exceptions=True), HOUR)

    WAITS: ClassVar[list[Callable[[Program, str, int], Awaitable[object]]]] = [
        yield_once, locked, await_future, wait_event, start_and_await, get_or_wait,
    ]  # fmt: skip
    ACTIONS: ClassVar[list[Callable[[Program, str, int], Awaitable[object]]]] = [
        yield_once, yield_once, start, start, start_and_await, gather, cancel_one, await_future, finish_future,
        finish_future, locked, wait_event, put, get, time_out, shielded, call_soon, uncancel, time_limit, time_limit,
        group, group, limited, notified, get_or_wait, put_or_wait, first_of_several,
        first_of_several, in_their_order, in_their_order, shield_and_give_up, gather_what_is_shielded,
    ]  # fmt: skip

    async def main(self) -> None:
        asyncio.get_running_loop().set_exception_handler(self.report)
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
        # More than once: a task that took back a request may take the next one for a time limit's, and wait again.
        for _ in range(100):
            for task in self.tasks:
                task.cancel("the end")
            await self.names.sleep(0)
        done, _ = await self.names.wait(self.tasks, timeout=0)
        self.log.append(f"not done: {sorted(task.get_name() for task in self.tasks if task not in done)}")
        await self.names.gather(*done, return_exceptions=True)
        left = self.names.all_tasks() - {self.names.current_task()}
        # Numbers of unnamed tasks go on from run to run.
        self.log.append(f"left: {sorted(task.get_name().partition('Task-')[0] for task in left)}")


def describe(future: asyncio.Future[object]) -> str:
    if not future.done():
        return "pending"
    if future.cancelled():
        return "cancelled"
    return f"raised {future.exception()!r}" if future.exception() else f"returned {future.result()!r}"


# A cancelled wait_for of 3.11 retrieves nothing from the gather it cancelled, which in asyncio lives on in the frames of the
# traceback: when it is reported, and whether within the program, says how long exceptions live.
LEFT_TO_A_TRACEBACK = "_GatheringFuture exception was never retrieved" if sys.version_info < (3, 12) else None

# Some random programs wait for what never comes, on asyncio as well: those say nothing about ioxide.
FOR_EVER_SECONDS = 5


def run(choices: Sequence[int], names: Any, factory: Callable[[], asyncio.AbstractEventLoop]) -> list[str]:
    """What the program logs. Fails: TimeoutError where it waits for ever."""
    with asyncio.Runner(loop_factory=factory) as runner:

        async def main() -> list[str]:
            program = Program(choices, names)
            await program.main()
            logged = len(program.log)
            program.tasks.clear()
            program.futures.clear()
            gc.collect()
            # What only the collector finds is reported now, in an order that is nobody's doing.
            return program.log[:logged] + sorted(program.log[logged:])

        gc.disable()
        gc.freeze()  # what is older than the program is not looked at each time
        try:
            return runner.run(main())
        finally:
            gc.unfreeze()
            gc.enable()


SIDES = {"loop": (asyncio, ioxide.new_event_loop), "names": (ioxide, ioxide.new_event_loop)}


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("side", SIDES)
@settings(
    max_examples=PROGRAMS, deadline=None, database=None, derandomize=not ARE_NEW, suppress_health_check=list(HealthCheck)
)
@given(choices=st.lists(st.integers(0, 999), min_size=60, max_size=400))
def test_a_random_program_does_the_same(side: str, choices: list[int]) -> None:
    try:
        expected = run(choices, asyncio, asyncio.SelectorEventLoop)
    except TimeoutError:
        reject()
    names, factory = SIDES[side]
    assert run(choices, names, factory) == expected


@pytest.fixture(autouse=True)
def nothing_is_reported_later() -> Any:
    """What programs leave unawaited is collected while its warnings are expected."""
    yield
    gc.collect()
