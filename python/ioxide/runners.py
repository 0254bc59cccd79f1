"""asyncio.runners on ioxide: `Runner` and `run`.

What it is: asyncio's own runner with another default factory, in Python on purpose: it runs once a program.
What it leaves to others: how a runner lives, cancels and handles Ctrl-C stays asyncio's code, of
whatever Python version runs.

Invariants
R1. A `loop_factory` that the caller gives is used as it is; only its absence means ioxide.
R2. The native names stand in asyncio from a runner's first use to its close, whichever loop it runs.
"""

from __future__ import annotations

import asyncio

from ioxide.events import new_event_loop
from ioxide.install import native_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any, TypeVar

    _Result = TypeVar("_Result")
    _LoopFactory = Callable[[], asyncio.AbstractEventLoop]

__all__ = ("Runner", "run")


# typeshed calls asyncio.Runner final, for asyncio's documentation says so; at run time it is not.
class Runner(asyncio.Runner):  # type: ignore[misc]
    """asyncio.Runner whose loop is ioxide's unless `loop_factory` says otherwise.

    As long as it is in use, ioxide's native names stand in asyncio, for the whole process; with accelerate=False it
    places none.
    """

    def __init__(
        self,
        *,
        debug: bool | None = None,
        loop_factory: _LoopFactory | None = None,
        accelerate: bool = True,
    ) -> None:
        super().__init__(debug=debug, loop_factory=loop_factory or new_event_loop)
        self._accelerate = accelerate
        self._placed_names = False

    def close(self) -> None:
        """Shut down and close the event loop."""
        try:
            super().close()
        finally:
            if self._placed_names:
                self._placed_names = False
                native_names.give_back()

    # What every method of asyncio.Runner calls first, on every version: a runner makes its loop when it is needed.
    def _lazy_init(self) -> None:
        super()._lazy_init()  # type: ignore[misc]
        if self._accelerate and not self._placed_names:
            native_names.place()
            self._placed_names = True


def run(
    main: Coroutine[Any, Any, _Result],
    *,
    debug: bool | None = None,
    loop_factory: _LoopFactory | None = None,
    accelerate: bool = True,
) -> _Result:
    """Run the coroutine on a new ioxide event loop and return its result, as asyncio.run() does.

    While it runs, ioxide's native names stand in asyncio; accelerate=False leaves asyncio as it is.
    """
    if asyncio.events._get_running_loop() is not None:
        # asyncio's message, word for word: programs and tests match on it.
        raise RuntimeError("asyncio.run() cannot be called from a running event loop")
    with Runner(debug=debug, loop_factory=loop_factory, accelerate=accelerate) as runner:
        return runner.run(main)
