"""iscoroutine() and isfuture(): the same answer as asyncio's, about everything."""

from __future__ import annotations

import asyncio
import collections.abc
import concurrent.futures
import inspect
from typing import Any

import pytest

import ioxide
from sides import SIDES


class Duck:
    """Behaves as a future."""

    _asyncio_future_blocking = False


class NoDuck:
    _asyncio_future_blocking = None


class Derived(asyncio.Future[Any]):
    pass


class Coroutine(collections.abc.Coroutine[Any, Any, Any]):
    """A coroutine of a class of one's own."""

    def send(self, value: Any) -> Any: ...
    def throw(self, *exception: Any) -> Any: ...
    def close(self) -> None: ...
    def __await__(self) -> Any: ...


async def native() -> None: ...


async def generator() -> Any:
    yield 1


def objects(loop: asyncio.AbstractEventLoop) -> list[Any]:
    coroutines = [native(), ioxide.sleep(0), ioxide.Queue().get(), ioxide.wait([]), Coroutine()]
    futures = [loop.create_future(), asyncio.Future(loop=loop), ioxide.Future(loop=loop), Derived(loop=loop), Duck(), NoDuck()]
    others = [None, 1, "text", native, generator(), (item for item in ()), concurrent.futures.Future(), Duck, asyncio.Future]
    return [*coroutines, *futures, *others]


@pytest.mark.parametrize("name", ["iscoroutine", "isfuture"])
def test_the_same_answer_about_everything(name: str) -> None:
    loop = asyncio.new_event_loop()
    asked = objects(loop)
    try:
        answers = [[getattr(side.names, name)(asked_about) for asked_about in asked] for side in SIDES.values()]
        assert all(answer == answers[0] for answer in answers)
        assert True in answers[0] and False in answers[0]
        assert getattr(ioxide, name)(obj=asked[0]) is getattr(asyncio, name)(obj=asked[0])
        for side in SIDES.values():
            with pytest.raises(TypeError):
                getattr(side.names, name)()
            assert str(inspect.signature(getattr(side.names, name))) == "(obj)"
    finally:
        for asked_about in asked:
            if inspect.isawaitable(asked_about) and hasattr(asked_about, "close"):
                asked_about.close()
        loop.close()


@pytest.mark.parametrize("name", ["iscoroutine", "isfuture"])
def test_a_class_that_lies_and_one_that_fails(name: str) -> None:
    class Lies:
        @property
        def __class__(self) -> Any:
            return asyncio.Future

        _asyncio_future_blocking = True

    class Fails:
        @property
        def __class__(self) -> Any:
            raise ZeroDivisionError

    for side in SIDES.values():
        assert getattr(side.names, name)(Lies()) is getattr(asyncio, name)(Lies())
        with pytest.raises(ZeroDivisionError):
            getattr(side.names, name)(Fails())
