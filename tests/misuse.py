"""Programs that do something wrong, and what comes of it on each pair of names and loop (sides).

What a case came to on asyncio, exceptions with their contexts and texts, is what it must come to everywhere.
"""

from __future__ import annotations

import asyncio
import gc
import re
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from outcomes import outcome, shown
from sides import SIDES, Side

HOUR = 3600

Case = Callable[[Side], Coroutine[Any, Any, Any]]


def plain(value: Any) -> Any:
    """A value without what differs between two runs: addresses, names of tasks and places in files."""
    if isinstance(value, BaseException):
        return plain(shown(value))
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | bytes):
        return value
    text = value if isinstance(value, str) else repr(value)
    text = re.sub(r" at /[^ >]*:\d+", "", re.sub(r"0x[0-9a-f]+", "0x", text))
    return re.sub(r"Task-\d+", "Task-N", text)


def tried(call: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    try:
        return plain(call(*arguments, **keywords))
    except BaseException as error:
        return plain(error)


async def awaited(call: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """What a coroutine function comes to; one that waits for ever is given up after some turns."""
    try:
        awaitable = call(*arguments, **keywords)
    except BaseException as error:
        return ["when called", plain(error)]
    return await given_up(awaitable)


async def given_up(awaitable: Awaitable[Any], turns: int = 5) -> Any:
    async def wait() -> Any:
        return plain(await outcome(awaitable))

    task = asyncio.get_running_loop().create_task(wait())
    for _ in range(turns):
        await asyncio.sleep(0)
    if task.done():
        return task.result()
    task.cancel()
    await task
    return "waits"


def step(awaitable: Any) -> Any:
    """What one step of an awaitable by hand gives."""
    iterator = awaitable.__await__()
    try:
        return iterator.send(None)
    finally:
        if hasattr(awaitable, "close"):
            awaitable.close()


async def nothing() -> str:
    return "nothing"


def cases(*programs: Case) -> Callable[[Any], Any]:
    """Parameters of a test: each program, with and without debug mode."""

    def parametrized(test: Any) -> Any:
        test = pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])(test)
        return pytest.mark.parametrize("case", programs, ids=[program.__name__ for program in programs])(test)

    return parametrized


def same_on_all_sides(case: Case, debug: bool) -> str:
    """What the case comes to on asyncio, as a text; every other side must come to the same."""
    expected = _run(SIDES["asyncio"], case, debug)
    for name, side in SIDES.items():
        assert _run(side, case, debug) == expected, name
    return str(expected)


def _run(side: Side, case: Case, debug: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # coroutines that are never awaited belong to misuse
        outcomes = side.run(case(side), debug=debug)
        gc.collect()
    return outcomes
