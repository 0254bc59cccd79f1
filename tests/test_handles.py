"""Handles and timer handles beyond what CPython's own tests ask: asyncio's, and those of ioxide.

Real subclasses, cancellation at every moment, order and equality of timers, references that a handle keeps and lets go.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import ioxide

Loop = asyncio.AbstractEventLoop


def nothing(*arguments: Any) -> None:
    """A callback with a place to be shown in representations."""


def spin(loop: Loop, seconds: float = 0.0) -> None:
    loop.run_until_complete(asyncio.sleep(seconds))


@pytest.fixture(params=["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def schedule(request: pytest.FixtureRequest, loop: Loop) -> Callable[..., asyncio.Handle]:
    """Every way to get a handle; timers are due at once."""
    if request.param == "call_later":
        return lambda *arguments, **keywords: loop.call_later(0, *arguments, **keywords)
    if request.param == "call_at":
        return lambda *arguments, **keywords: loop.call_at(loop.time(), *arguments, **keywords)
    return getattr(loop, request.param)  # type: ignore[no-any-return]


def test_real_subclasses(loop: Loop) -> None:
    handle, timer = loop.call_soon(nothing), loop.call_later(1, nothing)
    assert isinstance(handle, asyncio.Handle) and not isinstance(handle, asyncio.TimerHandle)
    assert isinstance(timer, asyncio.TimerHandle) and isinstance(timer, asyncio.Handle)
    assert issubclass(ioxide.Handle, asyncio.Handle)
    assert issubclass(ioxide.TimerHandle, asyncio.TimerHandle)


def test_cancelled_before_it_runs(loop: Loop, schedule: Callable[..., asyncio.Handle]) -> None:
    got: list[int] = []
    handle = schedule(got.append, 1)
    assert handle.cancelled() is False
    assert handle.cancel() is None
    assert handle.cancelled() is True
    assert handle.cancel() is None
    spin(loop, 0.002)
    assert got == []


def test_cancelled_by_the_callback_before_it(loop: Loop, schedule: Callable[..., asyncio.Handle]) -> None:
    got: list[int] = []
    handles: list[asyncio.Handle] = []
    schedule(lambda: handles[0].cancel())
    handles.append(schedule(got.append, 1))
    spin(loop, 0.002)
    assert got == [] and handles[0].cancelled()


def test_cancelled_while_and_after_it_runs(loop: Loop, schedule: Callable[..., asyncio.Handle]) -> None:
    got: list[int] = []
    handles: list[asyncio.Handle] = []

    def itself() -> None:
        handles[0].cancel()
        got.append(1)

    handles.append(schedule(itself))
    after = schedule(got.append, 2)
    spin(loop, 0.002)
    after.cancel()
    assert got == [1, 2] and handles[0].cancelled() and after.cancelled()


def test_base_methods_do_what_own_methods_do(loop: Loop, schedule: Callable[..., asyncio.Handle]) -> None:
    got: list[int] = []
    handle = schedule(got.append, 1)
    base = asyncio.TimerHandle if isinstance(handle, asyncio.TimerHandle) else asyncio.Handle
    assert base.cancelled(handle) is False
    assert base.__repr__(handle) == repr(handle)
    base.cancel(handle)
    assert base.cancelled(handle) is handle.cancelled() is True
    spin(loop, 0.002)
    assert got == []


def test_arguments_are_let_go_when_cancelled(loop: Loop, schedule: Callable[..., asyncio.Handle]) -> None:
    class Argument:
        pass

    argument = Argument()
    reference = weakref.ref(argument)
    handle = schedule(nothing, argument)
    del argument
    gc.collect()
    assert reference() is not None
    handle.cancel()
    gc.collect()
    assert reference() is None


def test_what_a_handle_keeps_is_collected_in_cycles(loop: Loop, schedule: Callable[..., asyncio.Handle]) -> None:
    class Node:
        handle: asyncio.Handle

    node = Node()
    node.handle = schedule(nothing, node)
    reference, weak_handle = weakref.ref(node), weakref.ref(node.handle)
    spin(loop, 0.002)
    del node
    gc.collect()
    assert reference() is None and weak_handle() is None


def test_private_attributes(loop: Loop, schedule: Callable[..., asyncio.Handle]) -> None:
    handle: Any = schedule(nothing, 1, "two")
    assert handle._callback is nothing
    assert handle._args == (1, "two")
    assert handle._loop is loop
    assert handle._cancelled is False
    assert handle._source_traceback is None
    handle.cancel()
    assert handle._callback is None and handle._args is None and handle._cancelled is True


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Handle.get_context() came with Python 3.12")
def test_context(loop: Loop, schedule: Callable[..., asyncio.Handle]) -> None:
    context = contextvars.copy_context()
    assert schedule(nothing, context=context).get_context() is context
    assert isinstance(schedule(nothing).get_context(), contextvars.Context)


def test_shown_as_asyncio_shows_it(loop: Loop) -> None:
    with contextlib.closing(asyncio.SelectorEventLoop()) as oracle:
        for debug in (False, True):
            shown = []
            for each in (oracle, loop):
                each.set_debug(debug)
                handle, timer = each.call_soon(nothing, 1, "two"), each.call_at(12.5, nothing)
                texts = [repr(handle), repr(timer)]
                handle.cancel()
                timer.cancel()
                shown.append([*texts, repr(handle), repr(timer)])
            assert shown[0] == shown[1]
    assert "nothing(1, 'two')" in shown[1][0] and "when=12.5" in shown[1][1] and "cancelled" in shown[1][3]


def test_timers_are_ordered_and_equal_by_time(loop: Loop) -> None:
    early, late, same = (loop.call_at(when, nothing) for when in (1e9, 2e9, 1e9))
    assert early < late and late > early and early <= same and early >= same
    assert early == same and early != late and not (early < same)
    assert early != 1e9
    assert (early.__eq__(1), early.__lt__(1)) == (NotImplemented, NotImplemented)
    assert hash(early) == hash(1e9) == hash(same)
    assert (early.when(), late.when()) == (1e9, 2e9)
    assert sorted([late, early]) == [early, late]
    other = asyncio.TimerHandle(1e9, nothing, (), loop)
    assert early == other and early < asyncio.TimerHandle(1.5e9, nothing, (), loop) < late


def test_many_cancelled_timers_do_not_stay(loop: Loop) -> None:
    loop.call_later(1800, nothing)  # those behind it are not at the front, where cancelled ones leave at once
    references = []
    for _ in range(1000):
        timer = loop.call_later(3600, nothing)
        references.append(weakref.ref(timer))
        timer.cancel()
    del timer
    spin(loop)
    gc.collect()
    assert sum(reference() is not None for reference in references) <= 100


def test_a_handle_of_python_runs_on_the_loop(loop: Loop) -> None:
    got: list[int] = []
    handle = asyncio.Handle(got.append, (1,), loop)
    handle._run()
    assert got == [1]
    own: Any = loop.call_soon(got.append, 2)
    own._run()
    assert got == [1, 2]
    spin(loop)
    assert got == [1, 2, 2]
