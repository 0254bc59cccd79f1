"""shield(): what CPython's own tests do not ask, with the names of asyncio and of ioxide, on every loop."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from outcomes import outcome, same_on_all_sides
from sides import Side, side

__all__ = ("side",)


async def value(result: object, turns: int = 0) -> object:
    for _ in range(turns):
        await asyncio.sleep(0)
    return result


async def failing(message: str, turns: int = 0) -> None:
    await value(None, turns)
    raise ValueError(message)


def test_results_and_exceptions_pass() -> None:
    async def main(side: Side) -> Any:
        future = asyncio.get_running_loop().create_future()
        outer = side.shield(future)
        asyncio.get_running_loop().call_soon(future.set_result, "set")
        lock = side.names.Lock()
        return [
            await outer, await side.shield(value("coroutine", 3)), await side.shield(arg=value("by name")),
            await outcome(side.shield(failing("raised", 2))), await side.shield(side.gather(value(1, 1), value(2, 2))),
            await side.shield(lock.acquire()), lock.locked(), side.shield(future) is future,
            await side.shield(side.shield(value("twice", 2))),
        ]  # fmt: skip

    same_on_all_sides(main)


@pytest.mark.parametrize("end", ["result", "exception", "cancel", "never"])
@pytest.mark.parametrize("turns", [0, 1, 2])
def test_the_outer_future_is_cancelled(end: str, turns: int) -> None:
    async def main(side: Side) -> Any:
        log: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: log.append((context["message"], repr(context.get("exception")))))
        inner = loop.create_future()
        outer = side.shield(inner)
        outer.add_done_callback(lambda outer: log.append(f"outer {outer.cancelled()}"))
        inner.add_done_callback(lambda inner: log.append("inner"))
        outer.cancel("message")
        await value(None, turns)
        log.append(len(inner._callbacks or ()))
        if end == "result":
            inner.set_result(1)
        elif end == "exception":
            inner.set_exception(ValueError("late"))
        elif end == "cancel":
            inner.cancel()
        log.append(await outcome(outer))
        await value(None, 3)
        log.append((len(inner._callbacks or ()), inner.done(), inner.cancelled()))
        del inner, outer
        gc.collect()
        return log

    same_on_all_sides(main)


def test_the_inner_future_is_cancelled() -> None:
    async def main(side: Side) -> Any:
        inner = asyncio.create_task(value(1, 9))
        outer = side.shield(inner)
        await value(None, 1)
        inner.cancel("inner's message")
        return await outcome(outer), outer.cancelled(), await outcome(inner)

    same_on_all_sides(main)


def test_the_waiting_task_is_cancelled() -> None:
    async def main(side: Side) -> Any:
        inner = asyncio.create_task(value("goes on", 5))

        async def waiter() -> Any:
            return await side.shield(inner)

        task = asyncio.create_task(waiter())
        await value(None, 2)
        task.cancel("told")
        return await outcome(task), inner.done(), await inner, inner._callbacks

    same_on_all_sides(main)


def test_the_outer_future_has_been_set_by_somebody() -> None:
    async def main(side: Side) -> Any:
        reports: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: reports.append(repr(context["exception"])))
        inner = loop.create_future()
        outer: Any = side.shield(inner)
        inner.set_result("inner")
        outer.set_result("mine")
        await value(None, 3)
        return await outer, reports

    same_on_all_sides(main)


@pytest.mark.parametrize("awaitable", [1, None, "text", []])
def test_refuses_what_cannot_be_awaited(awaitable: Any) -> None:
    async def main(side: Side) -> Any:
        async def call() -> Any:
            return await side.shield(awaitable)

        return (await outcome(call()))[:2]

    same_on_all_sides(main)


def test_without_a_running_loop(side: Side) -> None:
    loop = side.loop_factory()
    try:
        inner = loop.create_future()
        outer = side.shield(inner)
        loop.call_soon(inner.set_result, "set")
        assert loop.run_until_complete(outer) == "set"
        coroutine = value(1)
        asyncio.set_event_loop(None)
        with pytest.raises(RuntimeError, match="no current event loop"):
            side.shield(coroutine)
        coroutine.close()  # type: ignore[attr-defined]
    finally:
        loop.close()


def test_leaves_nothing_behind(side: Side) -> None:
    async def main() -> Any:
        never = asyncio.get_running_loop().create_future()
        for _ in range(10):
            outer = side.shield(never)
            outer.cancel()
            await value(None, 2)
        assert not never._callbacks
        done = asyncio.get_running_loop().create_future()
        outer = side.shield(done)
        done.set_result(None)
        await outer
        return [weakref.ref(future) for future in (never, done, outer)]

    references = side.run(main())
    gc.collect()
    assert [reference() for reference in references] == [None] * 3
