"""The call graph of 3.14 and later: who awaits whom is the same, and native coroutines are shown, with either side's names.

The functions are asyncio's own on both sides: they read what ioxide's futures, tasks and coroutines tell of themselves.
"""

from __future__ import annotations

import asyncio
import io
import sys
from typing import Any

import pytest

from outcomes import same_on_all_sides
from sides import SIDES, Side

pytestmark = pytest.mark.skipif(sys.version_info < (3, 14), reason="asyncio has the call graph from 3.14 on")

WAYS = ["await", "gather", "wait", "shield", "as_completed", "wait_for", "group"]


async def waiting(side: Side, way: str, tasks: list[Any]) -> None:
    match way:
        case "await":
            await tasks[0]
        case "gather":
            await side.gather(*tasks)
        case "wait":
            await side.wait(tasks)
        case "shield":
            await side.shield(tasks[0])
        case "as_completed":
            for earliest in side.as_completed(tasks):
                await earliest
        case "wait_for":
            await side.wait_for(tasks[0], 3600)
        case "group":
            async with side.names.TaskGroup() as group:
                tasks.append(group.create_task(forever(), name="in the group"))


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def edges(graph: Any) -> Any:
    """The names of the tasks that await each other."""
    return graph.future.get_name(), sorted(edges(parent) for parent in graph.awaited_by)


@pytest.mark.parametrize("way", WAYS)
def test_who_awaits_whom(way: str) -> None:
    async def main(side: Side) -> Any:
        tasks = [side.names.create_task(forever(), name=f"inner {index}") for index in range(2)]
        outer = side.names.create_task(waiting(side, way, tasks), name="outer")
        for _ in range(3):
            await asyncio.sleep(0)
        seen = [edges(side.names.capture_call_graph(task)) for task in [*tasks, outer]]
        for task in [*tasks, outer]:
            task.cancel()
        await asyncio.wait([*tasks, outer])
        await asyncio.sleep(0)
        return seen, [edges(side.names.capture_call_graph(task)) for task in tasks]

    same_on_all_sides(main)


@pytest.mark.parametrize("side", SIDES)
def test_native_coroutines_are_in_the_stack(side: str) -> None:
    async def main(side: Side) -> None:
        lock, queue = side.names.Lock(), side.names.Queue()
        await lock.acquire()
        for coroutine, name in ((side.sleep(3600), "sleep"), (queue.get(), "get"), (lock.acquire(), "acquire")):

            async def outer(coroutine: Any = coroutine) -> None:
                await coroutine

            task = side.names.create_task(outer(), name="shown")
            await asyncio.sleep(0)
            text = side.names.format_call_graph(task)
            assert "Task(name='shown'" in text
            assert f" {name}()" in text or f".{name}()" in text
            assert text.index(f"{name}()") < text.index("outer()")
            file = io.StringIO()
            side.names.print_call_graph(task, file=file)
            assert file.getvalue() == text + "\n"
            task.cancel()
            await asyncio.wait([task])

    SIDES[side].run(main(SIDES[side]))


@pytest.mark.parametrize("side", SIDES)
def test_the_current_task_and_misuse(side: str) -> None:
    async def main(side: Side) -> None:
        graph = side.names.capture_call_graph()
        assert graph.future is asyncio.current_task()
        assert graph.call_stack[0].frame.f_code.co_name == "main"
        with pytest.raises(TypeError, match="does not appear to be compatible"):
            side.names.capture_call_graph(1)

    with pytest.raises(RuntimeError, match="outside of a running event loop"):
        SIDES[side].names.capture_call_graph()
    SIDES[side].run(main(SIDES[side]))
