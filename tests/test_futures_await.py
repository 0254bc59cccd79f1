"""What `await future` does step by step, of asyncio's Future and of ioxide's, which are stepped without an iterator.

Results of every kind, exceptions and their context, coroutines that are driven by hand, futures that wait twice, iterators
that are asked for, derived classes, and the callback `future.set_result`. What it leaves to others: which callbacks a future
calls (test_futures).
"""

from __future__ import annotations

import asyncio
import collections.abc
import gc
import weakref
from typing import Any

import pytest

import ioxide

Loop = asyncio.AbstractEventLoop
FUTURES: dict[str, type[asyncio.Future[Any]]] = {"asyncio": asyncio.Future, "ioxide": ioxide.Future}


class Derived(ioxide.Future):  # type: ignore[misc]
    pass


class AwaitedOtherwise(ioxide.Future):  # type: ignore[misc]
    def __await__(self) -> Any:
        yield from super().__await__()
        return "otherwise"


@pytest.fixture(params=FUTURES)
def future_class(request: pytest.FixtureRequest) -> type[asyncio.Future[Any]]:
    return FUTURES[request.param]


async def wait(future: Any) -> Any:
    return await future


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("result", [None, True, 5, (), (1, 2), ValueError("a value"), StopIteration])
def test_results(loop: Loop, future_class: type[asyncio.Future[Any]], result: object, early: bool) -> None:
    future = future_class(loop=loop)
    if early:
        future.set_result(result)
    else:
        loop.call_soon(future.set_result, result)
    assert loop.run_until_complete(wait(future)) is result


@pytest.mark.parametrize("early", [True, False])
def test_an_exception_gets_the_context_of_who_awaits(
    loop: Loop, future_class: type[asyncio.Future[Any]], early: bool
) -> None:
    future, failure, handled = future_class(loop=loop), KeyError("failure"), OSError("handled")

    async def main() -> None:
        try:
            raise handled
        except OSError:
            await future

    if early:
        future.set_exception(failure)
    else:
        loop.call_soon(future.set_exception, failure)
    with pytest.raises(KeyError) as caught:
        loop.run_until_complete(main())
    assert caught.value is failure
    assert failure.__context__ is handled


def test_a_cancelled_future(loop: Loop, future_class: type[asyncio.Future[Any]]) -> None:
    future = future_class(loop=loop)
    future.cancel("message")
    with pytest.raises(asyncio.CancelledError, match="message"):
        loop.run_until_complete(wait(future))


def test_driven_by_hand(loop: Loop, future_class: type[asyncio.Future[Any]]) -> None:
    future = future_class(loop=loop)
    coroutine = wait(future)
    assert coroutine.send(None) is future
    assert future._asyncio_future_blocking is True
    with pytest.raises(RuntimeError, match="await wasn't used with future"):
        coroutine.send(None)
    again = wait(future)
    future._asyncio_future_blocking = False
    again.send(None)
    future.set_result(3)
    with pytest.raises(StopIteration) as returned:
        again.send(None)
    assert returned.value.value == 3


def test_thrown_into_and_closed(loop: Loop, future_class: type[asyncio.Future[Any]]) -> None:
    first, second = future_class(loop=loop), future_class(loop=loop)
    thrown, closed = wait(first), wait(second)
    thrown.send(None)
    closed.send(None)
    with pytest.raises(KeyError, match="thrown"):
        thrown.throw(KeyError("thrown"))
    closed.close()
    assert not first.done()
    assert not second.done()


def test_who_asks_for_an_iterator_gets_asyncios(loop: Loop, future_class: type[asyncio.Future[Any]]) -> None:
    future = future_class(loop=loop)
    assert type(iter(future)) is type(future.__await__()) is type(iter(asyncio.Future(loop=loop)))
    assert not isinstance(future, collections.abc.Iterator)
    assert not hasattr(future, "__next__")
    iterator = future.__await__()
    assert next(iterator) is future
    future.set_result(4)
    with pytest.raises(StopIteration) as returned:
        next(iterator)
    assert returned.value.value == 4


def test_inside_an_awaitable_of_python(loop: Loop, future_class: type[asyncio.Future[Any]]) -> None:
    class Awaitable:
        def __init__(self, future: asyncio.Future[int]) -> None:
            self.future = future

        def __await__(self) -> Any:
            return self.future.__await__()

    class Delegating(Awaitable):
        def __await__(self) -> Any:
            return (yield from self.future)

    for kind in (Awaitable, Delegating):
        future = future_class(loop=loop)
        loop.call_soon(future.set_result, 6)
        assert loop.run_until_complete(wait(kind(future))) == 6


@pytest.mark.parametrize(("kind", "expected"), [(Derived, 2), (AwaitedOtherwise, "otherwise")])
def test_derived_classes(loop: Loop, kind: type[asyncio.Future[Any]], expected: object) -> None:
    future = kind(loop=loop)
    loop.call_soon(future.set_result, 2)
    assert loop.run_until_complete(wait(future)) == expected
    assert not isinstance(future, collections.abc.Iterator)


@pytest.mark.parametrize("kind", [asyncio.Task, ioxide.Task])
def test_tasks(loop: Loop, kind: type[asyncio.Task[Any]]) -> None:
    async def returns(value: object) -> object:
        await asyncio.sleep(0)
        return value

    async def main() -> list[Any]:
        return [await kind(returns(value), loop=loop) for value in (None, True, (1,), "text")]

    assert loop.run_until_complete(main()) == [None, True, (1,), "text"]


def test_without_initialisation(loop: Loop, future_class: type[asyncio.Future[Any]]) -> None:
    with pytest.raises(RuntimeError, match="Future object is not initialized"):
        loop.run_until_complete(wait(future_class.__new__(future_class)))


def test_a_suspended_coroutine_in_a_cycle_is_collected(loop: Loop, future_class: type[asyncio.Future[Any]]) -> None:
    future = future_class(loop=loop)
    coroutine = wait(future)
    coroutine.send(None)
    future.add_done_callback(lambda _future, held=coroutine: None)
    reference = weakref.ref(future)
    del future, coroutine
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("delay", [None, 0, 0.001])
def test_set_result_as_a_callback(
    loop: Loop, future_class: type[asyncio.Future[Any]], delay: float | None
) -> None:
    """Whoever is called after it sees no current task and the context that it was scheduled in."""
    seen: list[object] = []

    async def main() -> object:
        future = future_class(loop=loop)
        future.add_done_callback(lambda done: seen.append((done.result(), asyncio.current_task())))
        if delay is None:
            loop.call_soon(future.set_result, "result")
        else:
            loop.call_later(delay, future.set_result, "result")
        return await future

    assert loop.run_until_complete(main()) == "result"
    assert seen == [("result", None)]


def test_set_result_of_what_is_done_is_reported(loop: Loop, future_class: type[asyncio.Future[Any]]) -> None:
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, report: reports.append({**report, "task": asyncio.current_task()}))

    async def main() -> None:
        future = future_class(loop=loop)
        loop.call_soon(future.set_result, 1)
        loop.call_soon(future.set_result, 2)
        loop.call_soon(future.set_result)
        handle = loop.call_soon(future.set_result, 3)
        handle.cancel()
        await asyncio.sleep(0)
        assert await future == 1

    loop.run_until_complete(main())
    assert [(type(report["exception"]), report["task"]) for report in reports] == [
        (asyncio.InvalidStateError, None),
        (TypeError, None),
    ]
