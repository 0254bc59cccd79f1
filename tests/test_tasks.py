"""Tasks: what CPython's own test_tasks does not ask, of asyncio's Task and of ioxide's.

Real subclasses, methods of the base class called on them, foreign futures and tasks, the registries that asyncio's
functions read, task factories, and reports about forgotten tasks. What it leaves to others: `make conformance`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import sys
import threading
import weakref
from collections.abc import Coroutine
from typing import Any

import pytest

import ioxide

Loop = asyncio.AbstractEventLoop
FUTURES: dict[str, type[asyncio.Future[Any]]] = {"asyncio": asyncio.Future, "ioxide": ioxide.Future}
TASKS: dict[str, type[asyncio.Task[Any]]] = {"asyncio": asyncio.Task, "ioxide": ioxide.Task}
needs_eager_start = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager start came with Python 3.12")


@pytest.fixture(params=FUTURES)
def future_class(request: pytest.FixtureRequest) -> type[asyncio.Future[Any]]:
    """Every class of future: a test with this, `task_class` and `loop` runs eight times."""
    return FUTURES[request.param]


@pytest.fixture(params=TASKS)
def task_class(request: pytest.FixtureRequest) -> type[asyncio.Task[Any]]:
    """Every class of task."""
    return TASKS[request.param]


async def wait(awaitable: Any) -> Any:
    return await awaitable


def turn(loop: Loop) -> None:
    loop.run_until_complete(asyncio.sleep(0))


def finish(loop: Loop, task: asyncio.Task[Any]) -> None:
    task.cancel()
    loop.run_until_complete(asyncio.wait([task]))


def test_a_real_subclass(loop: Loop) -> None:
    task = loop.create_task(asyncio.sleep(0))
    assert isinstance(task, asyncio.Task) and isinstance(task, asyncio.Future)
    assert issubclass(type(task), asyncio.Task)
    assert issubclass(type(task), type(loop.create_future()))
    assert type(task).__basicsize__ >= asyncio.Task.__basicsize__
    assert asyncio.ensure_future(task, loop=loop) is task
    loop.run_until_complete(task)
    assert issubclass(ioxide.Task, ioxide.Future) and ioxide.Task is not asyncio.Task


def test_base_methods_see_the_task(loop: Loop) -> None:
    coroutine = asyncio.sleep(30)
    task = loop.create_task(coroutine, name="named")
    turn(loop)
    base = asyncio.Task
    assert base.get_coro(task) is coroutine
    assert base.get_name(task) == "named"
    base.set_name(task, 5)
    assert task.get_name() == "5"
    assert base.done(task) is False and base.cancelled(task) is False
    assert base.cancelling(task) == 0
    assert base.get_loop(task) is loop
    assert len(base.get_stack(task)) == len(task.get_stack()) == 1
    assert base.__repr__(task) == repr(task)
    assert base._fut_waiter.__get__(task) is task._fut_waiter is not None  # type: ignore[attr-defined]
    if sys.version_info >= (3, 12):
        assert base.get_context(task) is task.get_context()
    finish(loop, task)


def test_base_cancel_cancels(loop: Loop) -> None:
    task = loop.create_task(asyncio.sleep(30))
    turn(loop)
    assert asyncio.Task.cancel(task, "by the base") is True
    assert asyncio.Task.cancelling(task) == task.cancelling() == 1
    with pytest.raises(asyncio.CancelledError, match="by the base"):
        loop.run_until_complete(task)
    assert task.cancelled() and asyncio.Task.cancelled(task) and asyncio.Task.done(task)


def test_base_cancel_before_the_first_step(loop: Loop) -> None:
    started: list[int] = []

    async def main() -> None:
        started.append(1)

    task = loop.create_task(main())
    assert asyncio.Task.cancel(task) is True
    assert task._must_cancel is asyncio.Task._must_cancel.__get__(task) is True  # type: ignore[attr-defined]
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    assert started == []


def test_base_uncancel(loop: Loop) -> None:
    task = loop.create_task(asyncio.sleep(30))
    task.cancel()
    assert asyncio.Task.uncancel(task) == 0
    assert task.cancelling() == 0
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task) if sys.version_info < (3, 13) else finish_and_raise(loop, task)


def finish_and_raise(loop: Loop, task: asyncio.Task[Any]) -> None:
    """From 3.13 on the last uncancel() takes a cancellation back that has not been delivered."""
    assert task._must_cancel is False  # type: ignore[attr-defined]
    turn(loop)
    task.cancel()
    loop.run_until_complete(task)


def test_set_result_is_refused(loop: Loop) -> None:
    task = loop.create_task(asyncio.sleep(0))
    for call in (task.set_result, lambda value: asyncio.Task.set_result(task, value)):
        with pytest.raises(RuntimeError, match="Task does not support set_result operation"):
            call(1)
    with pytest.raises(RuntimeError, match="Task does not support set_exception operation"):
        asyncio.Task.set_exception(task, ValueError())
    assert loop.run_until_complete(task) is None


def test_weak_reference(loop: Loop) -> None:
    task = loop.create_task(asyncio.sleep(0))
    reference = weakref.ref(task)
    loop.run_until_complete(task)
    turn(loop)
    del task
    gc.collect()
    assert reference() is None


def test_cycles_are_collected(loop: Loop, task_class: type[asyncio.Task[Any]]) -> None:
    class Node:
        task: asyncio.Task[Any]

    async def main(node: Node) -> Node:
        await asyncio.sleep(0)
        return node

    async def fail(node: Node) -> None:
        raise LookupError(node)

    references = []
    for function in (main, fail):
        node = Node()
        node.task = task_class(function(node), loop=loop)
        loop.run_until_complete(asyncio.wait([node.task]))
        assert (node.task.exception() is None) == (function is main)
        references += [weakref.ref(node.task), weakref.ref(node)]
        del node
    turn(loop)
    gc.collect()
    assert [reference() for reference in references] == [None] * 4


def test_subclass_in_python(loop: Loop) -> None:
    class Observed(type(loop.create_task(asyncio.sleep(0)))):  # type: ignore[misc]
        def __init__(self, coroutine: Any, **keywords: Any) -> None:
            super().__init__(coroutine, **keywords)
            self.cancels = 0

        def cancel(self, msg: Any = None) -> bool:
            self.cancels += 1
            return super().cancel(msg)

    async def main() -> Any:
        return asyncio.current_task()

    turn(loop)
    task = Observed(main(), loop=loop, name="observed")
    assert loop.run_until_complete(task) is task
    assert task.get_name() == "observed"
    sleeper = Observed(asyncio.sleep(30), loop=loop)
    gathering = asyncio.gather(sleeper, loop.create_future())
    turn(loop)
    gathering.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(gathering)
    assert sleeper.cancels == 1 and sleeper.cancelled()


def test_any_task_awaits_any_future(
    loop: Loop, task_class: type[asyncio.Task[Any]], future_class: type[asyncio.Future[Any]]
) -> None:
    future = future_class(loop=loop)
    task = task_class(wait(future), loop=loop)
    turn(loop)
    assert task._fut_waiter is future  # type: ignore[attr-defined]
    assert len(future._callbacks) == 1  # type: ignore[attr-defined]
    future.set_result("result")
    assert loop.run_until_complete(task) == "result"

    failing = future_class(loop=loop)
    task = task_class(wait(failing), loop=loop)
    loop.call_later(0.001, failing.set_exception, LookupError("failed"))
    with pytest.raises(LookupError, match="failed"):
        loop.run_until_complete(task)

    awaited = future_class(loop=loop)
    task = task_class(wait(awaited), loop=loop)
    turn(loop)
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        loop.run_until_complete(task)
    assert awaited.cancelled()


@pytest.mark.parametrize("inner_class", TASKS)
def test_any_task_awaits_any_task(loop: Loop, task_class: type[asyncio.Task[Any]], inner_class: str) -> None:
    inner = TASKS[inner_class](asyncio.sleep(0.001, "slept"), loop=loop)
    assert loop.run_until_complete(task_class(wait(inner), loop=loop)) == "slept"
    inner = TASKS[inner_class](asyncio.sleep(30), loop=loop)
    outer = task_class(wait(inner), loop=loop)
    turn(loop)
    outer.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(outer)
    assert inner.cancelled()


def test_current_and_all_tasks(loop: Loop, task_class: type[asyncio.Task[Any]]) -> None:
    seen: list[Any] = []

    async def main() -> None:
        seen.append((asyncio.current_task(), asyncio.current_task(loop), asyncio.all_tasks()))
        await asyncio.sleep(0)
        seen.append((asyncio.current_task(), asyncio.current_task(loop), asyncio.all_tasks(loop)))

    task = task_class(main(), loop=loop)
    assert asyncio.current_task(loop) is None
    assert asyncio.all_tasks(loop) == {task}
    loop.call_soon(lambda: seen.append(asyncio.current_task(loop)))
    loop.run_until_complete(task)
    assert seen == [(task, task, {task}), None, (task, task, {task})]
    assert asyncio.all_tasks(loop) == set()


def test_tasks_are_seen_from_another_thread(loop: Loop) -> None:
    seen: list[Any] = []

    def look() -> None:
        seen.append((asyncio.current_task(loop), asyncio.all_tasks(loop)))
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.current_task()

    async def main() -> None:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    task = loop.create_task(main())
    loop.run_until_complete(task)
    [(current, every)] = seen
    assert every == {task}
    assert current is task


@needs_eager_start
def test_eager_tasks_are_seen(loop: Loop, task_class: type[asyncio.Task[Any]]) -> None:
    seen: list[Any] = []

    async def eager() -> str:
        seen.append((asyncio.current_task(), asyncio.all_tasks()))
        thread = threading.Thread(target=lambda: seen.append(asyncio.all_tasks(loop)))
        thread.start()
        thread.join()
        return "finished"

    async def main() -> None:
        this = asyncio.current_task()
        task = task_class(eager(), loop=loop, eager_start=True)  # type: ignore[call-arg]
        assert asyncio.current_task() is this
        assert task.done() and task.result() == "finished"
        if task_class is ioxide.Task or sys.version_info >= (3, 13):  # asyncio's own crashes here on 3.12.1
            assert task.get_coro() is None
        assert seen == [(task, {this, task}), {this, task}]
        assert asyncio.all_tasks() == {this}

    loop.run_until_complete(main())


@needs_eager_start
def test_eager_task_factory(loop: Loop) -> None:
    loop.set_task_factory(asyncio.eager_task_factory)
    steps: list[str] = []

    async def child() -> None:
        steps.append("started")
        await asyncio.sleep(0)
        steps.append("ended")

    async def main() -> None:
        task = asyncio.create_task(child(), name="child")
        steps.append("created")
        await task
        assert task.get_name() == "child"

    loop.run_until_complete(main())
    assert steps == ["started", "created", "ended"]


def keywords_that_reach_a_factory(loop: Loop, **keywords: Any) -> dict[str, Any]:
    got: list[tuple[Loop, dict[str, Any]]] = []

    def factory(loop: Loop, coroutine: Coroutine[Any, Any, Any], **keywords: Any) -> asyncio.Task[Any]:
        got.append((loop, keywords))
        return asyncio.Task(coroutine, loop=loop, **keywords)

    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory
    loop.run_until_complete(loop.create_task(asyncio.sleep(0), **keywords))
    [(of_loop, passed)] = got
    assert of_loop is loop
    return passed


@pytest.mark.parametrize("names", [(), ("name",), ("context",), ("name", "context")])
def test_a_factory_gets_what_asyncio_passes(loop: Loop, names: tuple[str, ...]) -> None:
    every = {"name": "named", "context": contextvars.copy_context()}
    keywords = {name: every[name] for name in names}
    with contextlib.closing(asyncio.SelectorEventLoop()) as oracle:
        expected = keywords_that_reach_a_factory(oracle, **keywords)
    assert keywords_that_reach_a_factory(loop, **keywords) == expected


def test_a_factory_without_keywords(loop: Loop) -> None:
    made: list[asyncio.Task[Any]] = []

    def factory(loop: Loop, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        made.append(asyncio.Task(coroutine, loop=loop))
        return made[-1]

    loop.set_task_factory(factory)  # type: ignore[arg-type]
    task = loop.create_task(asyncio.sleep(0, "slept"))
    assert [task] == made
    assert loop.run_until_complete(task) == "slept"
    loop.set_task_factory(None)
    assert loop.get_task_factory() is None


def test_a_task_runs_in_its_context(loop: Loop) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="default")

    async def change(value: str) -> str:
        before = variable.get()
        variable.set(value)
        await asyncio.sleep(0)
        assert variable.get() == value
        return before

    context = contextvars.copy_context()
    context.run(variable.set, "given")
    assert loop.run_until_complete(loop.create_task(change("one"), context=context)) == "given"
    assert loop.run_until_complete(loop.create_task(change("two"), context=context)) == "one"
    assert loop.run_until_complete(loop.create_task(change("three"))) == "default"
    assert context[variable] == "two" and variable.get() == "default"


def test_destroyed_while_pending(loop: Loop, task_class: type[asyncio.Task[Any]]) -> None:
    contexts: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    task = task_class(wait(loop.create_future()), loop=loop, name="forgotten")
    turn(loop)
    del task
    gc.collect()
    [context] = contexts
    assert context["message"] == "Task was destroyed but it is pending!"
    assert set(context) == {"task", "message"}
    assert context["task"].get_name() == "forgotten"
    assert isinstance(context["task"], task_class)


def test_destroyed_on_purpose_is_not_reported(loop: Loop) -> None:
    contexts: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    task = loop.create_task(wait(loop.create_future()))
    turn(loop)
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    del task
    gc.collect()
    assert contexts == []


def test_an_exception_that_nobody_retrieves(loop: Loop, task_class: type[asyncio.Task[Any]]) -> None:
    contexts: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))

    async def fail() -> None:
        raise ValueError("lost")

    task = task_class(fail(), loop=loop)
    turn(loop)
    turn(loop)
    del task
    gc.collect()
    [context] = contexts
    assert context["message"] == "Task exception was never retrieved"
    assert str(context["exception"]) == "lost"


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
def test_leaving_the_loop_from_a_task(loop: Loop, exception: type[BaseException]) -> None:
    async def leave() -> None:
        await asyncio.sleep(0)
        raise exception("leaving")

    task = loop.create_task(leave())
    with pytest.raises(exception, match="leaving"):
        loop.run_forever()
    assert not loop.is_running() and task.done()
    assert isinstance(task.exception(), exception)
    assert asyncio.current_task(loop) is None
    assert loop.run_until_complete(asyncio.sleep(0.001, "usable")) == "usable"


def test_what_may_not_be_awaited(loop: Loop, task_class: type[asyncio.Task[Any]]) -> None:
    class Yields:
        def __init__(self, value: Any) -> None:
            self.value = value

        def __await__(self) -> Any:
            yield self.value

    async def itself() -> None:
        await asyncio.current_task()  # type: ignore[misc]

    for value, text in [(1, "Task got bad yield: 1"), (loop.create_future(), "yield was used instead of yield from")]:
        with pytest.raises(RuntimeError, match=text):
            loop.run_until_complete(task_class(wait(Yields(value)), loop=loop))
    with pytest.raises(RuntimeError, match="Task cannot await on itself"):
        loop.run_until_complete(task_class(itself(), loop=loop))
    with pytest.raises(TypeError, match="a coroutine was expected, got 1"):
        task_class(1, loop=loop)  # type: ignore[arg-type]
