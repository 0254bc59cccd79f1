"""Futures: what CPython's own test_futures does not ask, of asyncio's Future and of ioxide's.

Real subclasses, methods of the base class called on them, weak references, cycles, subclasses, both kinds of future on
both kinds of loop, and the report about an exception that nobody retrieved. What it leaves to others: `make conformance`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import weakref
from typing import Any

import pytest

import ioxide

Loop = asyncio.AbstractEventLoop
LOOPS = {"asyncio": asyncio.SelectorEventLoop, "ioxide": ioxide.new_event_loop}
FUTURES: dict[str, type[asyncio.Future[Any]]] = {"asyncio": asyncio.Future, "ioxide": ioxide.Future}


@pytest.fixture(params=FUTURES)
def future_class(request: pytest.FixtureRequest) -> type[asyncio.Future[Any]]:
    """Every class of future, on every loop: a test with this and `loop` runs four times."""
    return FUTURES[request.param]


def turn(loop: Loop) -> None:
    loop.run_until_complete(asyncio.sleep(0))


def test_a_real_subclass(loop: Loop) -> None:
    future = loop.create_future()
    assert isinstance(future, asyncio.Future)
    assert issubclass(type(future), asyncio.Future)
    assert type(future).__mro__[-2:] == (asyncio.Future, object)
    assert type(future).__basicsize__ >= asyncio.Future.__basicsize__
    assert asyncio.isfuture(future)
    assert asyncio.ensure_future(future, loop=loop) is future


def test_a_loop_creates_its_own_kind() -> None:
    with contextlib.closing(ioxide.new_event_loop()) as loop:
        assert type(loop.create_future()) is ioxide.Future
    assert ioxide.Future is not asyncio.Future
    assert issubclass(ioxide.Future, asyncio.Future)


def test_base_methods_see_what_the_future_did(loop: Loop) -> None:
    future = loop.create_future()
    assert asyncio.Future.done(future) is False
    assert asyncio.Future.cancelled(future) is False
    assert asyncio.Future.get_loop(future) is loop
    with pytest.raises(asyncio.InvalidStateError, match="Result is not set"):
        asyncio.Future.result(future)
    future.set_result(7)
    assert asyncio.Future.done(future) is True
    assert asyncio.Future.result(future) == 7
    assert asyncio.Future.exception(future) is None
    assert asyncio.Future.cancel(future) is False


def test_base_set_result_wakes_and_calls(loop: Loop) -> None:
    future = loop.create_future()
    seen: list[Any] = []
    future.add_done_callback(lambda done: seen.append(done.result()))

    async def wait() -> Any:
        return await future

    task = loop.create_task(wait())
    turn(loop)
    asyncio.Future.set_result(future, "set by the base")
    assert future.done() and future.result() == "set by the base"
    assert loop.run_until_complete(task) == "set by the base"
    assert seen == ["set by the base"]
    with pytest.raises(asyncio.InvalidStateError):
        future.set_result(1)


def test_base_set_exception_and_cancel(loop: Loop) -> None:
    failing = loop.create_future()
    asyncio.Future.set_exception(failing, ValueError("from the base"))
    with pytest.raises(ValueError, match="from the base"):
        failing.result()
    cancelled = loop.create_future()
    assert asyncio.Future.cancel(cancelled, "message") is True
    assert cancelled.cancelled() and cancelled.done()
    with pytest.raises(asyncio.CancelledError, match="message"):
        cancelled.result()


def test_base_callbacks_run_once_with_their_context(loop: Loop) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outer")
    context = contextvars.copy_context()
    context.run(variable.set, "inner")
    future = loop.create_future()
    seen: list[tuple[Any, str]] = []

    def kept(done: Any) -> None:
        seen.append((done, variable.get()))

    def removed(done: Any) -> None:
        seen.append((done, "was removed"))

    asyncio.Future.add_done_callback(future, kept, context=context)
    asyncio.Future.add_done_callback(future, kept)
    asyncio.Future.add_done_callback(future, removed)
    assert asyncio.Future.remove_done_callback(future, removed) == 1
    future.set_result(None)
    assert seen == []
    turn(loop)
    assert seen == [(future, "inner"), (future, "outer")]


def test_base_repr_and_private_attributes(loop: Loop) -> None:
    future = loop.create_future()
    base, own = asyncio.Future.__repr__(future), repr(future)
    assert base == own == "<Future pending>"
    for name in ("_state", "_result", "_exception", "_callbacks", "_log_traceback", "_asyncio_future_blocking"):
        assert getattr(asyncio.Future, name).__get__(future) == getattr(future, name), name
    future.set_result([1])
    assert asyncio.Future.__repr__(future) == repr(future) == "<Future finished result=[1]>"


def test_weak_reference(loop: Loop) -> None:
    future = loop.create_future()
    gone: list[Any] = []
    reference = weakref.ref(future, gone.append)
    assert reference() is future
    del future
    assert reference() is None and gone == [reference]


def test_cycles_are_collected(loop: Loop, future_class: type[asyncio.Future[Any]]) -> None:
    through_result = future_class(loop=loop)
    through_result.set_result([through_result])
    through_callback = future_class(loop=loop)
    through_callback.add_done_callback(lambda _, itself=through_callback: itself)
    through_exception = future_class(loop=loop)
    error = ValueError()
    error.future = through_exception  # type: ignore[attr-defined]
    through_exception.set_exception(error)
    assert through_exception.exception() is error
    references = [weakref.ref(future) for future in (through_result, through_callback, through_exception)]
    turn(loop)
    del through_result, through_callback, through_exception, error
    gc.collect()
    assert [reference() for reference in references] == [None, None, None]


def test_an_iterator_in_a_cycle_is_collected(loop: Loop) -> None:
    future = loop.create_future()
    iterator = iter(future)
    assert iterator.send(None) is future
    future.set_result(iterator)
    reference = weakref.ref(future)
    del future, iterator
    gc.collect()
    assert reference() is None


def test_subclass_in_python(loop: Loop) -> None:
    class Counting(type(loop.create_future())):  # type: ignore[misc]
        __slots__ = ("calls",)

        def __init__(self, **keywords: Any) -> None:
            super().__init__(**keywords)
            self.calls: list[str] = []

        def set_result(self, result: Any) -> None:
            self.calls.append("set_result")
            super().set_result(result)

        def add_done_callback(self, function: Any, *, context: Any = None) -> None:
            self.calls.append("add_done_callback")
            super().add_done_callback(function, context=context)

    async def wait(future: Any) -> Any:
        return await future

    future = Counting(loop=loop)
    assert isinstance(future, asyncio.Future)
    loop.call_later(0.001, future.set_result, 3)
    assert loop.run_until_complete(wait(future)) == 3
    assert future.calls == ["add_done_callback", "set_result"]
    assert loop.run_until_complete(future) == 3


def test_attributes_as_on_asyncio_futures(loop: Loop) -> None:
    future = loop.create_future()
    try:
        asyncio.Future(loop=loop).anything = 1  # type: ignore[attr-defined]
    except AttributeError:
        with pytest.raises(AttributeError):
            future.anything = 1  # type: ignore[attr-defined]
    else:
        future.anything = 1  # type: ignore[attr-defined]
        assert future.anything == 1  # type: ignore[attr-defined]


def test_any_future_on_any_loop(loop: Loop, future_class: type[asyncio.Future[Any]]) -> None:
    async def wait(future: asyncio.Future[Any]) -> Any:
        return await future

    future = future_class(loop=loop)
    loop.call_soon(future.set_result, "result")
    assert loop.run_until_complete(wait(future)) == "result"
    failing = future_class(loop=loop)
    loop.call_later(0.001, failing.set_exception, LookupError("failed"))
    with pytest.raises(LookupError, match="failed"):
        loop.run_until_complete(wait(failing))
    cancelled = future_class(loop=loop)
    loop.call_soon(cancelled.cancel, "enough")
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(wait(cancelled))
    assert loop.run_until_complete(asyncio.gather(future, wait(future))) == ["result", "result"]


@pytest.mark.parametrize("of_future", LOOPS)
def test_a_future_of_another_loop_is_refused(loop: Loop, of_future: str) -> None:
    async def wait(future: asyncio.Future[Any]) -> Any:
        return await future

    with contextlib.closing(LOOPS[of_future]()) as other:
        future = other.create_future()
        with pytest.raises(RuntimeError, match="attached to a different loop"):
            loop.run_until_complete(wait(future))


def test_an_exception_that_nobody_retrieves(
    loop: Loop, future_class: type[asyncio.Future[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    contexts: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    error = ValueError("lost")
    future = future_class(loop=loop)
    future.set_exception(error)
    shown = repr(future)
    del future
    gc.collect()
    [context] = contexts
    assert context["message"] == "Future exception was never retrieved"
    assert context["exception"] is error
    assert repr(context["future"]) == shown
    assert isinstance(context["future"], future_class)

    loop.set_exception_handler(None)
    contexts.clear()
    context.clear()
    future = future_class(loop=loop)
    future.set_exception(ValueError("lost too"))
    with caplog.at_level(logging.ERROR, "asyncio"):
        del future
        gc.collect()
    [record] = caplog.records
    assert record.name == "asyncio"
    assert record.getMessage().splitlines()[0] == "Future exception was never retrieved"


@pytest.mark.parametrize("retrieve", ["exception", "result", "await", "_log_traceback"])
def test_a_retrieved_exception_is_not_reported(loop: Loop, retrieve: str, caplog: pytest.LogCaptureFixture) -> None:
    async def wait(future: asyncio.Future[Any]) -> Any:
        return await future

    future = loop.create_future()
    future.set_exception(KeyError("known"))
    if retrieve == "exception":
        assert isinstance(future.exception(), KeyError)
    elif retrieve == "_log_traceback":
        assert future._log_traceback is True
        future._log_traceback = False
    else:
        with pytest.raises(KeyError):
            future.result() if retrieve == "result" else loop.run_until_complete(wait(future))
    del future
    gc.collect()
    assert caplog.records == []


def test_source_traceback_in_debug_mode(loop: Loop) -> None:
    future_class = type(loop.create_future())
    assert future_class(loop=loop)._source_traceback is None
    loop.set_debug(True)
    stack = future_class(loop=loop)._source_traceback
    assert stack is not None and stack[-1].name == "test_source_traceback_in_debug_mode"


def test_stop_iteration_cannot_be_set(loop: Loop) -> None:
    future = loop.create_future()
    try:
        asyncio.Future(loop=loop).set_exception(StopIteration())
    except TypeError as refused:  # until 3.11; wrapped into a RuntimeError later
        with pytest.raises(TypeError, match=str(refused)[:20]):
            future.set_exception(StopIteration())
    else:
        future.set_exception(StopIteration())
        assert isinstance(future.exception(), RuntimeError)
