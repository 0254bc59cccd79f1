"""The attributes of a loop that are Python's own objects, and methods that are replaced on one loop.

What it leaves to others: what the loop does (test_events).
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

Loop = asyncio.AbstractEventLoop

ATTRIBUTES = [
    "slow_callback_duration", "_clock_resolution", "_current_handle", "_exception_handler", "_default_executor",
    "_executor_shutdown_called", "_asyncgens", "_asyncgens_shutdown_called", "_signal_handlers",
    "_transports",
]  # fmt: skip


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes_of_asyncios_loop(loop: Loop, name: str) -> None:
    kept, other = getattr(loop, name), object()
    setattr(loop, name, other)
    assert getattr(loop, name) is other
    delattr(loop, name)
    assert not hasattr(loop, name)
    with pytest.raises(AttributeError, match=name):
        delattr(loop, name)
    setattr(loop, name, kept)
    assert getattr(loop, name) is kept


def test_methods_that_are_replaced_on_a_loop_and_given_back(loop: Loop) -> None:
    """Also on a loop that has had no attributes of its own before."""
    calls: list[object] = []
    original = loop.call_soon

    def call_soon(callback: Any, *arguments: Any, context: Any = None) -> asyncio.Handle:
        calls.append(callback)
        return original(callback, *arguments, context=context)

    async def wait() -> None:
        future = loop.create_future()
        original(future.set_result, None)
        await future

    loop.run_until_complete(wait())
    loop.call_soon = call_soon  # type: ignore[method-assign]
    loop.run_until_complete(wait())
    assert calls
    del loop.call_soon  # type: ignore[method-assign]
    calls.clear()
    loop.run_until_complete(wait())
    assert not calls
