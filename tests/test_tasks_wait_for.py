"""wait_for(): what CPython's own tests do not ask, with the names of asyncio and of ioxide, on every loop.

Deadlines are an hour away, or a few milliseconds where what is awaited never ends, so that no test depends on speed.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import weakref
from typing import Any

import pytest

from outcomes import outcome, same_on_all_sides
from sides import Side, side

__all__ = ("side",)

HOUR = 3600.0
SOON = 0.005


async def value(result: object, turns: int = 0) -> object:
    for _ in range(turns):
        await asyncio.sleep(0)
    return result


@pytest.mark.parametrize("timeout", [None, HOUR, 3600, True])
def test_in_time(timeout: Any) -> None:
    async def main(side: Side) -> Any:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_soon(future.set_result, "set")
        task = asyncio.create_task(value("task", 2))
        return [
            await side.wait_for(future, timeout), await side.wait_for(value("at once"), timeout),
            await side.wait_for(value("later", 3), timeout=timeout), await side.wait_for(task, timeout),
            await side.wait_for(future, timeout), await side.wait_for(side.sleep(0, 1), timeout),
        ]  # fmt: skip

    same_on_all_sides(main)


@pytest.mark.parametrize("timeout", [0, -1, 0.0])
def test_without_time(timeout: Any) -> None:
    async def main(side: Side) -> Any:
        done = asyncio.get_running_loop().create_future()
        done.set_result(1)
        return [
            await side.wait_for(done, timeout),
            await outcome(side.wait_for(asyncio.get_running_loop().create_future(), timeout)),
            await outcome(side.wait_for(value(1, 1), timeout)),
        ]

    same_on_all_sides(main)


def test_too_late() -> None:
    async def main(side: Side) -> Any:
        future = asyncio.get_running_loop().create_future()
        first = await outcome(side.wait_for(future, SOON))
        second = await outcome(side.wait_for(asyncio.sleep(HOUR), SOON))
        third = await outcome(side.wait_for(side.sleep(HOUR), SOON))
        task = asyncio.current_task()
        assert task is not None
        return first, future.cancelled(), second, third, task.cancelling(), len(asyncio.all_tasks())

    same_on_all_sides(main)


def test_what_is_awaited_has_its_own_ideas() -> None:
    async def stubborn(error: BaseException | None) -> str:
        try:
            await asyncio.sleep(HOUR)
        except asyncio.CancelledError:
            if error is not None:
                raise error from None
        return "stayed"

    async def main(side: Side) -> Any:
        return [
            await outcome(side.wait_for(stubborn(None), SOON)),
            (await outcome(side.wait_for(stubborn(ValueError("instead")), SOON)))[:2],
            await outcome(side.wait_for(stubborn(asyncio.CancelledError("mine")), SOON)),
        ]

    same_on_all_sides(main)


@pytest.mark.parametrize("message", [None, "told"])
def test_cancelled_from_outside(message: str | None) -> None:
    async def main(side: Side) -> Any:
        seen = []
        for awaitable in (asyncio.sleep(HOUR), side.sleep(HOUR), asyncio.get_running_loop().create_future()):
            task = asyncio.create_task(side.wait_for(awaitable, HOUR))
            await value(None, 3)
            task.cancel(message)
            seen.append((await outcome(task), task.cancelled(), task.cancelling()))
        return seen

    same_on_all_sides(main)


def test_nested_limits() -> None:
    async def main(side: Side) -> Any:
        return [
            await outcome(side.wait_for(side.wait_for(asyncio.sleep(HOUR), SOON), HOUR)),
            await outcome(side.wait_for(side.wait_for(asyncio.sleep(HOUR), HOUR), SOON)),
        ]

    same_on_all_sides(main)


def test_exceptions_pass() -> None:
    async def failing() -> None:
        await asyncio.sleep(0)
        raise ValueError("inner")

    async def main(side: Side) -> Any:
        return await outcome(side.wait_for(failing(), HOUR))

    assert same_on_all_sides(main)[:2] == ("ValueError", "inner")


@pytest.mark.parametrize("awaitable", [1, None, "text"])
def test_refuses_what_cannot_be_awaited(awaitable: Any) -> None:
    async def main(side: Side) -> Any:
        return (await outcome(side.wait_for(awaitable, HOUR)))[:2]

    same_on_all_sides(main)


@pytest.mark.parametrize("timeout", ["1", [], object])
def test_refuses_what_is_no_time(timeout: Any) -> None:
    async def main(side: Side) -> Any:
        future = asyncio.get_running_loop().create_future()
        return (await outcome(side.wait_for(future, timeout)))[:2]

    same_on_all_sides(main)


def test_is_a_coroutine_function(side: Side) -> None:
    assert inspect.iscoroutinefunction(side.wait_for)
    assert str(inspect.signature(side.wait_for)) == "(fut, timeout)"


def test_leaves_nothing_behind(side: Side) -> None:
    async def main() -> Any:
        task = asyncio.create_task(side.wait_for(asyncio.sleep(HOUR), HOUR))
        await value(None, 2)
        task.cancel()
        await asyncio.wait([task])
        for _ in range(300):
            await side.wait_for(value(1), HOUR)
        return weakref.ref(task)

    reference = side.run(main())
    gc.collect()
    assert reference() is None


def test_closed_while_it_waits(side: Side) -> None:
    async def main() -> None:
        coroutine = side.wait_for(asyncio.get_running_loop().create_future(), HOUR)
        coroutine.send(None)
        coroutine.close()

    side.run(main())
