"""Programs over locks and queues, run with asyncio's own classes and with ioxide's, on several loops.

Invariants
1. The oracle is asyncio's class on asyncio's loop; whatever a program returns there, it returns everywhere.
2. A program counts turns of the loop (`turns`), never time.
3. The programs are given the classes; they never ask whose they are.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import ioxide
from ioxide.native_names import NATIVE

TIMEOUT = 20  # seconds; only a program that fails waits so long

Program = Callable[[Any], Awaitable[Any]]

NAMES = [name for submodule in ("locks", "queues") for name in NATIVE.get(submodule, ())]
OWN = SimpleNamespace(**{name: getattr(asyncio, name) for name in NAMES if hasattr(asyncio, name)})
NATIVES = SimpleNamespace(**{name: getattr(ioxide, name) for name in NAMES})

RUNS: dict[str, tuple[Any, Callable[[], Any]]] = {
    "asyncio's on asyncio's loop": (OWN, asyncio.SelectorEventLoop),
    "ioxide's on ioxide's loop": (NATIVES, ioxide.new_event_loop),
    "ioxide's on asyncio's loop": (NATIVES, asyncio.SelectorEventLoop),
    "asyncio's on ioxide's loop": (OWN, ioxide.new_event_loop),
}


def run(program: Program, classes: Any, loop_factory: Callable[[], Any]) -> Any:
    """What the program returns, or the exception it ends with, with addresses left out of every string."""

    async def main() -> Any:
        asyncio.get_running_loop().set_task_factory(None)
        async with asyncio.timeout(TIMEOUT):
            return await program(classes)

    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            outcome = runner.run(main())
    except Exception as error:
        outcome = told(error)
    return without_addresses(outcome)


def agree(program: Program) -> Any:
    """Runs the program everywhere, compares, and returns what it came to."""
    oracle, *others = RUNS.items()
    expected = run(program, *oracle[1])
    for name, (classes, loop_factory) in others:
        assert run(program, classes, loop_factory) == expected, name
    return expected


def told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def without_addresses(value: Any) -> Any:
    if isinstance(value, str):
        return re.sub(r"0x[0-9a-f]+", "0x", value)
    if isinstance(value, list | tuple):
        return [without_addresses(item) for item in value]
    return value


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def ended(task: asyncio.Task[Any]) -> Any:
    """What a task came to."""
    try:
        return await task
    except asyncio.CancelledError as error:
        return f"cancelled {error.args}"
    except Exception as error:
        return told(error)


def entering(lock: Any, log: list[Any], name: str, stay: int = 1) -> asyncio.Task[Any]:
    async def enter() -> str:
        log.append(f"{name} comes")
        async with lock:
            log.append(f"{name} is in")
            await turns(stay)
            log.append(f"{name} leaves")
        return name

    return asyncio.create_task(enter())


async def cancelled_everywhere(scenario: Callable[[], list[asyncio.Task[Any]]], log: list[Any], length: int) -> list[Any]:
    """Plays the scenario again and again: each of its tasks is cancelled once in each of its first turns."""
    outcomes = []
    count = 1
    index = 0
    while index < count:
        for turn in range(length):
            log.clear()
            tasks = scenario()
            count = len(tasks)
            await turns(turn)
            tasks[index].cancel(f"in turn {turn}")
            await turns(length)
            for task in tasks:
                task.cancel("the end")
            outcomes.append([index, turn, [await ended(task) for task in tasks], list(log)])
        index += 1
    return outcomes
