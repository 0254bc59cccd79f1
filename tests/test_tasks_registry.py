"""all_tasks: asyncio's and ioxide's, on every loop, with tasks of every class."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import ioxide
from sides import Side, side

__all__ = ("side",)

CLASSES: dict[str, Callable[..., Any]] = {
    "ioxide": ioxide.Task,
    "asyncio": asyncio.Task,
    "derived": type("Derived", (ioxide.Task,), {}),
}
if sys.version_info < (3, 14):  # since then a task in Python is nobody that all_tasks() in C knows
    CLASSES["Python"] = asyncio.tasks._PyTask  # type: ignore[attr-defined]


async def forever() -> None:
    await asyncio.Event().wait()


def test_signature_and_misuse(side: Side) -> None:
    assert str(inspect.signature(ioxide.all_tasks)) == "(loop=None)"
    with pytest.raises(RuntimeError, match=r"^no running event loop$"):
        side.all_tasks()
    with pytest.raises(TypeError):
        side.all_tasks(None, None)


@pytest.mark.parametrize("kind", CLASSES)
def test_tasks_that_are_not_done(side: Side, kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        this = asyncio.current_task()
        tasks = [CLASSES[kind](forever(), loop=loop) for _ in range(3)]
        assert type(side.all_tasks()) is set
        assert side.all_tasks() == side.all_tasks(loop) == side.all_tasks(loop=loop) == {this, *tasks}
        assert side.all_tasks(None) == asyncio.all_tasks()
        tasks[0].cancel()
        assert tasks[0] in side.all_tasks()
        await asyncio.wait(tasks[:1])
        assert side.all_tasks() == {this, *tasks[1:]}
        for task in tasks[1:]:
            task.cancel()
        await asyncio.wait(tasks)
        assert side.all_tasks() == {this}

    side.run(main())


def test_tasks_of_another_loop(side: Side) -> None:
    async def main() -> None:
        here = asyncio.get_running_loop()
        seen: list[Any] = []

        async def there() -> None:
            seen.extend([side.all_tasks() == {asyncio.current_task()}, main_task in side.all_tasks(here)])

        main_task = asyncio.current_task()
        thread = threading.Thread(target=lambda: side.run(there()))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert seen == [True, True]

    side.run(main())


def test_a_task_that_is_gone_is_not_kept(side: Side) -> None:
    async def main() -> Any:
        task = asyncio.ensure_future(asyncio.sleep(0))
        assert task in side.all_tasks()
        await task
        reference = weakref.ref(task)
        del task
        await asyncio.sleep(0)
        gc.collect()
        return reference()

    assert side.run(main()) is None
