"""asyncio.runners on ioxide: `Runner`, `run` and `new_event_loop`.

What it is: asyncio's own runner with another default factory.
What it leaves to others: how a runner lives, cancels and handles Ctrl-C stays asyncio's code, of
whatever Python version runs.

Invariants
R1. A `loop_factory` that the caller gives is used as it is; only its absence means ioxide.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ioxide._ioxide import EventLoop

__all__ = ("Runner", "new_event_loop", "run")

_Result = TypeVar("_Result")
_LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def new_event_loop() -> EventLoop:
    """Create and return a new ioxide event loop."""
    return EventLoop()


# typeshed calls asyncio.Runner final, for asyncio's documentation says so; at run time it is not.
class Runner(asyncio.Runner):  # type: ignore[misc]
    """asyncio.Runner whose loop is ioxide's unless `loop_factory` says otherwise."""

    def __init__(
        self, *, debug: bool | None = None, loop_factory: _LoopFactory | None = None
    ) -> None:
        super().__init__(debug=debug, loop_factory=loop_factory or new_event_loop)


def run(
    main: Coroutine[Any, Any, _Result],
    *,
    debug: bool | None = None,
    loop_factory: _LoopFactory | None = None,
) -> _Result:
    """Run the coroutine on a new ioxide event loop and return its result, as asyncio.run() does."""
    if asyncio.events._get_running_loop() is not None:
        # asyncio's message, word for word: programs and tests match on it.
        raise RuntimeError("asyncio.run() cannot be called from a running event loop")
    with Runner(debug=debug, loop_factory=loop_factory) as runner:
        return runner.run(main)
