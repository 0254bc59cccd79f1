"""Task groups: what CPython's own test_taskgroups does not ask, of asyncio's and of ioxide's, on every loop."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import sys
import weakref
from typing import Any

import pytest

import ioxide
from outcomes import outcome, same_on_all_sides, shown
from sides import Side, side

__all__ = ("side",)

HOUR = 3600.0
has_cancel = sys.version_info >= (3, 15)


async def value(result: Any, turns: int = 0) -> Any:
    for _ in range(turns):
        await asyncio.sleep(0)
    return result


async def fail(error: BaseException, turns: int = 0) -> None:
    await value(None, turns)
    raise error


async def sleep(log: list[Any], name: str, clean_up: int = 0) -> None:
    try:
        await asyncio.sleep(HOUR)
    except asyncio.CancelledError as error:
        await value(None, clean_up)
        log.append((name, error.args))
        raise


def test_life_of_a_group(side: Side) -> None:
    async def main() -> list[Any]:
        group = side.TaskGroup()
        assert type(group) is side.TaskGroup and isinstance(group, asyncio.TaskGroup)
        assert repr(group) == "<TaskGroup>"
        async with group as entered:
            assert entered is group and repr(group) == "<TaskGroup entered>"
            tasks = [group.create_task(value(number, number), name=f"number {number}") for number in range(3)]
            assert repr(group) == "<TaskGroup tasks=3 entered>"
            assert tasks[1].get_name() == "number 1" and group._tasks == set(tasks)
            assert group._parent_task is asyncio.current_task()
        assert repr(group).startswith("<TaskGroup")
        return [task.result() for task in tasks]

    assert side.run(main()) == [0, 1, 2]


def test_failures_and_what_they_cancel() -> None:
    async def main(side: Side) -> Any:
        log: list[Any] = []

        async def one_fails() -> None:
            async with side.TaskGroup() as group:
                group.create_task(sleep(log, "other", clean_up=2))
                group.create_task(fail(ValueError("first"), 1))
                group.create_task(fail(KeyError("second"), 1))
                await sleep(log, "body")

        async def body_fails() -> None:
            async with side.TaskGroup() as group:
                group.create_task(sleep(log, "task"))
                await asyncio.sleep(0)
                raise ValueError("body")

        async def both_fail() -> None:
            async with side.TaskGroup() as group:
                group.create_task(fail(ValueError("task")))
                try:
                    await asyncio.sleep(HOUR)
                finally:
                    raise KeyError("body")

        async def while_leaving() -> None:
            async with side.TaskGroup() as group:
                group.create_task(fail(ValueError("task"), 2))
                group.create_task(sleep(log, "task"))

        async def with_cause() -> None:
            try:
                raise IndexError("before")
            except IndexError:
                async with side.TaskGroup() as group:
                    group.create_task(fail(ValueError("task")))

        async def base_error() -> None:
            async with side.TaskGroup():
                raise SystemExit("body")

        async def nested() -> None:
            async with side.TaskGroup() as outer:
                outer.create_task(sleep(log, "outer"))
                async with side.TaskGroup() as inner:
                    inner.create_task(fail(ValueError("inner")))
                    inner.create_task(sleep(log, "inner"))

        for program in (one_fails, body_fails, both_fail, while_leaving, with_cause, base_error, nested):
            log.append((program.__name__, await outcome(program())))
            task = asyncio.current_task()
            assert task is not None
            log.append(task.cancelling())
            while task.cancelling():
                task.uncancel()
        return log

    same_on_all_sides(main)


def test_cancellation_of_the_parent() -> None:
    async def main(side: Side) -> Any:
        log: list[Any] = []

        async def in_body() -> None:
            async with side.TaskGroup() as group:
                group.create_task(sleep(log, "task", clean_up=1))
                await sleep(log, "body")

        async def while_leaving() -> None:
            async with side.TaskGroup() as group:
                group.create_task(sleep(log, "task", clean_up=1))

        async def body_swallows() -> None:
            async with side.TaskGroup() as group:
                group.create_task(sleep(log, "task"))
                try:
                    await asyncio.sleep(HOUR)
                except asyncio.CancelledError:
                    raise ValueError("instead") from None

        async def and_a_task_fails() -> None:
            async with side.TaskGroup() as group:
                group.create_task(fail(ValueError("task"), 2))
                await sleep(log, "body", clean_up=3)

        async def stubborn() -> None:
            async def task() -> None:
                try:
                    await asyncio.sleep(HOUR)
                except asyncio.CancelledError as error:
                    log.append(error.args)
                await value(None, 3)

            async with side.TaskGroup() as group:
                group.create_task(task())

        for program in (in_body, while_leaving, body_swallows, and_a_task_fails, stubborn):
            for times in (1, 2):
                task = asyncio.ensure_future(program())
                for number in range(times):
                    await value(None, 2)
                    log.append(task.cancel(f"{program.__name__} {number}"))
                await value(None, 20)
                log.append("cancelled" if task.cancelled() else task.done() and shown(task.exception()))
                log.append(task.cancelling())
                assert task.done()
        return log

    same_on_all_sides(main)


def test_misuse() -> None:
    async def main(side: Side) -> Any:
        log: list[Any] = []

        def create(group: Any, coroutine: Any) -> None:
            try:
                group.create_task(coroutine)
            except Exception as error:
                log.append((type(error).__name__, str(error), inspect.getcoroutinestate(coroutine)))
                coroutine.close()

        group = side.TaskGroup()
        create(group, value(1))
        async with group:
            log.append(await outcome(group.__aenter__()))
        create(group, value(1))
        log.append(await outcome(group.__aenter__()))

        async def shutting_down() -> None:
            async with side.TaskGroup() as group:
                group.create_task(fail(ValueError("task")))
                try:
                    await asyncio.sleep(HOUR)
                finally:
                    create(group, value(1))

        log.append(await outcome(shutting_down()))
        async with side.TaskGroup() as group:
            for bad in (None, 1, "text", value):
                try:
                    group.create_task(bad)
                except Exception as error:
                    log.append(type(error))
            try:
                group.create_task()
            except TypeError:
                log.append("needs a coroutine")
            coroutine = value(1)
            try:
                group.create_task(coroutine, unknown=1)
            except TypeError:
                log.append("unknown keyword")
            coroutine.close()
        return log

    log = same_on_all_sides(main)
    assert log[0][1] == "TaskGroup <TaskGroup> has not been entered"


def test_outside_of_a_task(side: Side) -> None:
    group = side.TaskGroup()
    with pytest.raises(RuntimeError, match=r"^no running event loop$"):
        group.__aenter__().send(None)

    async def main() -> str:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()

        def step() -> None:
            with pytest.raises(RuntimeError) as caught:
                side.TaskGroup().__aenter__().send(None)
            future.set_result(str(caught.value))

        loop.call_soon(step)
        return await future

    assert side.run(main()) == "TaskGroup <TaskGroup> cannot determine the parent task"


def test_keywords_reach_the_task(side: Side) -> None:
    variable = contextvars.ContextVar("variable", default="default")

    async def main() -> list[Any]:
        context = contextvars.copy_context()
        context.run(variable.set, "of the context")

        async def read() -> str:
            return variable.get()

        async with side.TaskGroup() as group:
            first = group.create_task(read(), context=context)
            second = group.create_task(coro=read(), name="named")
        return [first.result(), second.result(), second.get_name()]

    assert side.run(main()) == ["of the context", "default", "named"]


def test_task_factory_gets_what_asyncio_passes() -> None:
    async def main(side: Side) -> Any:
        calls: list[Any] = []

        def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **keywords: Any) -> asyncio.Task[Any]:
            calls.append(sorted(keywords))
            task = asyncio.Task(coroutine, loop=loop)
            if "name" in keywords:
                task.set_name(keywords["name"])
            return task

        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)  # type: ignore[arg-type]
        async with side.TaskGroup() as group:
            group.create_task(value(1))
            task = group.create_task(value(1), name="named", context=contextvars.copy_context())
        loop.set_task_factory(None)
        return calls, task.get_name()

    same_on_all_sides(main)


def test_replaced_create_task_of_the_loop_is_asked() -> None:
    async def main(side: Side) -> Any:
        calls: list[Any] = []
        loop: Any = asyncio.get_running_loop()
        own = loop.create_task

        def create_task(*arguments: Any, **keywords: Any) -> Any:
            calls.append((len(arguments), sorted(keywords)))
            return own(*arguments, **keywords)

        loop.create_task = create_task
        async with side.TaskGroup() as group:
            group.create_task(value(1))
            group.create_task(value(1), name="named")
        del loop.create_task
        return calls

    same_on_all_sides(main)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_tasks() -> None:
    async def main(side: Side) -> Any:
        log: list[Any] = []
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)

        async def program(*coroutines: Any) -> None:
            try:
                async with side.TaskGroup() as group:
                    for coroutine in coroutines:
                        task = group.create_task(coroutine)
                        log.append((task.done(), len(group._tasks)))
                    await asyncio.sleep(0)
                    log.append("still here")
            finally:
                for coroutine in coroutines:
                    coroutine.close()

        log.append(await outcome(program(value(1), value(2, 1))))
        log.append(await outcome(program(fail(ValueError("at once")), value(2, 1))))
        log.append(await outcome(program(sleep(log, "task"), fail(ValueError("later"), 1))))
        return log

    same_on_all_sides(main)


@pytest.mark.parametrize("when", ["before entering", "in the body", "by a task", "while leaving", "afterwards", "twice"])
def test_cancel_of_the_group(side: Side, when: str) -> None:
    if side.names is asyncio and not has_cancel:
        pytest.skip("asyncio's own groups have it from Python 3.15 on")

    async def main() -> Any:
        log: list[Any] = []
        group = side.TaskGroup()

        async def cancel() -> None:
            await asyncio.sleep(0)
            group.cancel()

        if when == "before entering":
            group.cancel()
        async with group:
            if when not in ("before entering", "afterwards"):
                group.create_task(sleep(log, "task"))
            if when in ("in the body", "twice"):
                group.cancel()
                await sleep(log, "body")
            if when == "twice":
                group.cancel()
            if when in ("by a task", "while leaving"):
                group.create_task(cancel())
            if when in ("before entering", "by a task"):
                await sleep(log, "body")
        group.cancel()
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return sorted(name for name, _ in log), task.cancelling()

    names = {
        "before entering": ["body"],
        "in the body": ["body", "task"],
        "by a task": ["body", "task"],
        "while leaving": ["task"],
        "afterwards": [],
        "twice": ["body", "task"],
    }
    if when in ("in the body", "twice"):
        names[when] = ["body"]  # the task was cancelled before its first step
    assert side.run(main()) == (names[when], 0)


def test_failed_task_of_a_finished_parent_is_reported() -> None:
    async def main(side: Side) -> Any:
        reports: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
        group = side.TaskGroup()

        async def parent() -> None:
            await group.__aenter__()
            group.create_task(fail(ValueError("orphan"), 2), name="orphan")

        await asyncio.ensure_future(parent())
        await value(None, 5)
        [report] = reports
        assert report["task"].get_name() == "orphan" and " has errored out but its parent task " in report["message"]
        return sorted(report), shown(report["exception"])

    same_on_all_sides(main)


def test_derived_class_is_asked(side: Side) -> None:
    log: list[str] = []

    class Derived(side.TaskGroup):  # type: ignore[misc, name-defined]
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def _on_task_done(self, task: Any) -> None:
            log.append("done")
            super()._on_task_done(task)

        def _abort(self) -> None:
            log.append("abort")
            super()._abort()

        def create_task(self, *arguments: Any, **keywords: Any) -> Any:
            log.append("create")
            return super().create_task(*arguments, **keywords)

    async def main() -> str:
        with pytest.raises(ExceptionGroup):
            async with Derived("group") as group:
                group.create_task(fail(ValueError("task")))
        return group.name

    assert side.run(main()) == "group"
    assert log == ["create", "done", "abort"]


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="since then a task in Python is nobody that current_task() in C knows")
def test_foreign_tasks_and_foreign_parents(side: Side) -> None:
    async def body() -> list[Any]:
        loop = asyncio.get_running_loop()
        own = loop.get_task_factory()
        loop.set_task_factory(lambda loop, coroutine, **_: asyncio.tasks._PyTask(coroutine, loop=loop))  # type: ignore[attr-defined]
        with pytest.raises(ExceptionGroup) as caught:
            async with side.TaskGroup() as group:
                done = group.create_task(value("done"))
                group.create_task(fail(ValueError("foreign"), 1))
                await asyncio.sleep(HOUR)
        loop.set_task_factory(own)
        return [done.result(), shown(caught.value)[2][0][:2]]

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        classes = [asyncio.Task, asyncio.tasks._PyTask]  # type: ignore[attr-defined]
        return [await class_(body(), loop=loop) for class_ in classes]

    assert side.run(main()) == [["done", ("ValueError", "foreign")]] * 2


def test_nothing_is_left_of_a_group(side: Side) -> None:
    async def main() -> None:
        gc.disable()
        try:
            for fails in (False, True):
                try:
                    async with side.TaskGroup() as group:
                        reference = weakref.ref(group)
                        group.create_task(fail(ValueError("task")) if fails else value(1))
                except ExceptionGroup:
                    pass
                del group
                await asyncio.sleep(0)
                assert fails or reference() is None
        finally:
            gc.enable()
        gc.collect()
        assert reference() is None

    side.run(main())


def test_coroutine_functions_and_signatures() -> None:
    for name in ("__aenter__", "__aexit__", "create_task"):
        native, own = getattr(ioxide.TaskGroup, name), getattr(asyncio.TaskGroup, name)
        assert inspect.iscoroutinefunction(native) == inspect.iscoroutinefunction(own)
        parameters = [parameter for parameter in inspect.signature(native).parameters if parameter != "eager_start"]
        assert parameters == list(inspect.signature(own).parameters)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="the call graph came with Python 3.14")
def test_parent_is_noted_as_the_one_who_awaits(side: Side) -> None:
    async def main() -> None:
        async with side.TaskGroup() as group:
            task: Any = group.create_task(value(1, 1))
            assert task._asyncio_awaited_by == {asyncio.current_task()}
        assert task._asyncio_awaited_by is None or not task._asyncio_awaited_by

    side.run(main())
