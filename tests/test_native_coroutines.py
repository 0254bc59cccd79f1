"""Coroutine objects of native functions are coroutines to whatever handles, shows or warns about them."""

from __future__ import annotations

import asyncio
import collections.abc
import gc
import inspect
import socket
import sys
import types
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


Ends = tuple[socket.socket, socket.socket]


def test_states(run: Any, ends: Ends) -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        coroutine = loop.sock_recv(ends[0], 10)
        states = [inspect.getcoroutinestate(coroutine)]  # type: ignore[arg-type]
        task = asyncio.create_task(coroutine)  # type: ignore[arg-type]
        await asyncio.sleep(0)
        states.append(inspect.getcoroutinestate(coroutine))  # type: ignore[arg-type]
        states.append(len(task.get_stack()))
        ends[1].send(b"data")
        states.append(await task)
        states.append(inspect.getcoroutinestate(coroutine))  # type: ignore[arg-type]
        return states

    assert run(main()) == ["CORO_CREATED", "CORO_SUSPENDED", 1, b"data", "CORO_CLOSED"]


def test_is_a_coroutine(loop: asyncio.AbstractEventLoop, ends: Ends) -> None:
    coroutine = loop.sock_recv(ends[0], 10)
    assert asyncio.iscoroutine(coroutine)
    assert inspect.isawaitable(coroutine)
    assert isinstance(coroutine, collections.abc.Coroutine)
    assert coroutine.__name__ == "sock_recv"
    assert coroutine.cr_code.co_name == "sock_recv"
    assert coroutine.cr_frame.f_code.co_name == "sock_recv"
    assert coroutine.cr_origin is None
    assert coroutine.cr_await is None
    assert coroutine.cr_running is False
    coroutine.close()
    assert coroutine.cr_frame is None


def test_is_shown_in_the_repr_of_its_task(run: Any, ends: Ends) -> None:
    async def main() -> str:
        task = asyncio.create_task(asyncio.get_running_loop().sock_recv(ends[0], 10))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        shown = repr(task)
        task.cancel()
        return shown

    assert "sock_recv() running at " in run(main())


def test_never_awaited_is_told(loop: asyncio.AbstractEventLoop, ends: Ends) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.sock_recv(ends[0], 10)
        gc.collect()
    (warning,) = caught
    assert str(warning.message).removesuffix("'").endswith("sock_recv' was never awaited")
    assert warning.category is RuntimeWarning
    assert warning.filename == __file__


def test_never_awaited_says_where_it_was_made(loop: asyncio.AbstractEventLoop, ends: Ends) -> None:
    sys.set_coroutine_origin_tracking_depth(1)
    try:
        coroutine: Any = loop.sock_recv(ends[0], 10)
    finally:
        sys.set_coroutine_origin_tracking_depth(0)
    (frame,) = coroutine.cr_origin
    assert frame[0] == __file__
    assert frame[2] == "test_never_awaited_says_where_it_was_made"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del coroutine
        gc.collect()
    (warning,) = caught
    assert "was never awaited\nCoroutine created at (most recent call last)\n" in str(warning.message)


def test_misuse(loop: asyncio.AbstractEventLoop, ends: Ends) -> None:
    coroutine: Any = loop.sock_recv(ends[0], 10)
    with pytest.raises(TypeError, match=r"can't send non-None value to a just-started coroutine"):
        coroutine.send(1)
    with pytest.raises(ZeroDivisionError):
        coroutine.throw(ZeroDivisionError())
    with pytest.raises(RuntimeError, match=r"^cannot reuse already awaited coroutine$"):
        coroutine.send(None)
    coroutine.close()


def test_throw_after_the_end(loop: asyncio.AbstractEventLoop, ends: Ends) -> None:
    coroutine: Any = loop.sock_recv(ends[0], 10)
    coroutine.close()
    with pytest.raises(RuntimeError, match=r"^cannot reuse already awaited coroutine$"):
        coroutine.throw(ZeroDivisionError())


def test_what_it_returns_lives_no_longer_than_needed(run: Any, ends: Ends) -> None:
    class Result(bytearray):
        pass

    class Loop:
        pass

    async def main() -> bool:
        result = Result(4)
        ends[1].send(b"data")
        await asyncio.get_running_loop().sock_recv_into(ends[0], result)
        reference = weakref.ref(result)
        del result
        return reference() is None

    assert run(main())


def test_values_reach_python_coroutines(run: Any, ends: Ends) -> None:
    """Tuples and exceptions are values like others, however they travel."""

    async def inner(value: Any) -> Any:
        ends[1].send(b"x")
        data, _ = await asyncio.get_running_loop().sock_recvfrom(ends[0], 10)
        return data, value

    async def main() -> Any:
        return await inner(StopIteration(1))

    data, value = run(main())
    assert data == b"x"
    assert value.value == 1


@types.coroutine
def delegating(awaitable: Any) -> Any:
    return (yield from awaitable)


def test_generators_can_delegate_to_it(run: Any, ends: Ends) -> None:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        loop.call_soon(ends[1].send, b"late")
        return await delegating(loop.sock_recv(ends[0], 10))

    assert run(main()) == b"late"
