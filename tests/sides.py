"""The sides that tests of streams compare: whose classes, on whose loop.

Invariants
1. "asyncio" is the oracle: asyncio's own classes on its own loop. The classes of ioxide must do the same on every loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import ioxide


class Side:
    """asyncio's names of the one or the other, and a way to run a coroutine on a loop of the one or the other."""

    def __init__(self, names: Any, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.names = names
        self.loop_factory = loop_factory

    def __getattr__(self, name: str) -> Any:
        return getattr(self.names, name)

    def run(self, main: Coroutine[Any, Any, Any], *, debug: bool | None = None) -> Any:
        with asyncio.Runner(debug=debug, loop_factory=self.loop_factory) as runner:
            return runner.run(main)


SIDES = {
    "asyncio": Side(asyncio, asyncio.SelectorEventLoop),
    "ioxide": Side(ioxide, ioxide.new_event_loop),
    "ioxide on asyncio's loop": Side(ioxide, asyncio.SelectorEventLoop),
    "asyncio on ioxide's loop": Side(asyncio, ioxide.new_event_loop),
}


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> Side:
    """Each pair of names and loop; a test that asks for it runs on all of them."""
    return SIDES[request.param]
