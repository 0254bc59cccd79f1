"""eager_task_factory and create_eager_task_factory: with the names of asyncio, where it has them, and of ioxide.

On 3.11 asyncio has none: there ioxide's are held to the very same expectations, which newer versions check against asyncio's.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

import ioxide
from outcomes import outcome
from sides import SIDES, Side

# asyncio's own tasks of 3.11 know no eager start.
EAGER_SIDES = {name: side for name, side in SIDES.items() if hasattr(side.names, "eager_task_factory")}


@pytest.fixture(params=EAGER_SIDES)
def side(request: pytest.FixtureRequest) -> Side:
    return EAGER_SIDES[request.param]


async def value(result: object, turns: int = 0) -> object:
    for _ in range(turns):
        await asyncio.sleep(0)
    return result


def test_starts_at_once(side: Side) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(side.eager_task_factory)
        log: list[Any] = []

        async def noting(who: str, turns: int) -> str:
            log.append((who, asyncio.current_task()))
            await value(None, turns)
            log.append(f"{who} goes on")
            return who

        done = loop.create_task(noting("done", 0), name="named")
        assert done.done() and done.result() == "done" and done.get_name() == "named"
        waiting = asyncio.create_task(noting("waiting", 1), name="other")
        assert not waiting.done()
        assert log == [("done", done), "done goes on", ("waiting", waiting)]
        assert waiting.get_name() == "other"
        assert waiting in asyncio.all_tasks() and done not in asyncio.all_tasks()
        assert await waiting == "waiting"

    side.run(main())


def test_tasks_are_of_the_class_that_the_names_mean(side: Side) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = side.eager_task_factory(loop, value(1))
        assert type(task) is side.names.Task
        assert task.result() == 1  # get_coro() of such a task crashes asyncio's own class on 3.12.1

    side.run(main())


def test_a_constructor_of_ones_own_is_called_as_task_is(side: Side) -> None:
    calls: list[Any] = []

    def constructor(coro: Any, **keywords: Any) -> Any:
        calls.append(keywords)
        return asyncio.get_running_loop().create_future() if coro is None else side.names.Task(coro, **keywords)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        factory = side.create_eager_task_factory(constructor)
        assert "factory" in repr(factory) and factory.__name__ == "factory"
        assert (await factory(loop, value("x", 1))) == "x"
        await factory(loop, value(1), name="named", context=None)
        rest = {} if sys.version_info >= (3, 14) else {"name": None, "context": None}
        assert calls[0] == {"loop": loop, "eager_start": True, **rest}
        assert calls[1] == {"loop": loop, "eager_start": True, "name": "named", "context": None}

    side.run(main())


def test_other_keywords_are_the_constructors_business_from_3_14_on(side: Side) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        factory = side.create_eager_task_factory(lambda coro, **keywords: keywords)
        if sys.version_info >= (3, 14):
            assert factory(loop, None, odd=1) == {"loop": loop, "eager_start": True, "odd": 1}
            assert factory(loop, None, eager_start=False)["eager_start"] is False
            task = side.eager_task_factory(loop, value(1), eager_start=False)
            assert not task.done()
            await task
        else:
            for refused in ({"odd": 1}, {"eager_start": False}):
                with pytest.raises(TypeError, match="unexpected keyword argument"):
                    factory(loop, None, **refused)

    side.run(main())


@pytest.mark.parametrize("arguments", [(), (None,), (None, None, None)])
def test_refuses_other_arguments(side: Side, arguments: Any) -> None:
    for factory in (side.eager_task_factory, side.create_eager_task_factory(side.names.Task)):
        with pytest.raises(TypeError):
            factory(*arguments)
    with pytest.raises(TypeError):
        side.create_eager_task_factory()


def test_cancelled_and_failing_eager_tasks(side: Side) -> None:
    async def failing() -> None:
        raise ValueError("at once")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(side.eager_task_factory)
        failed = loop.create_task(failing())
        assert failed.done() and str(failed.exception()) == "at once"
        task = asyncio.create_task(asyncio.sleep(3600))
        task.cancel("told")
        assert (await outcome(task))[:2] == ("CancelledError", "told")

    side.run(main())


def test_a_coroutine_of_a_lock_starts_at_once() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(ioxide.eager_task_factory)
        lock = ioxide.Lock()
        assert loop.create_task(lock.acquire()).done()
        waiting = loop.create_task(lock.acquire())
        assert not waiting.done()
        lock.release()
        assert await waiting

    ioxide.run(main())
