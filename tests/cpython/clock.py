"""A loop under test whose clock a test moves: what test_asyncio's utils.TestLoop is for CPython's own loop.

utils.TestLoop is a BaseEventLoop with a false selector, so it can only ever test CPython's loop. This one is a
subclass of the loop under test. The generator protocol is TestLoop's: after each turn it is sent the time of every
timer made since, and answers by how much the clock moves.

C1. A pump runs once a turn, behind everything that was scheduled with call_soon in the turn before: it is a real
    timer of the loop under test whose deadline has always passed. It runs the due timers, then moves the clock.
C2. A timer made in a turn is not due before the next turn, and the clock moves only at the end of a turn.
C3. An error of the generator (its assertions are part of the test) leaves run_forever and run_until_complete.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Generator
from typing import Any

RESOLUTION = 1e-9

ClockGenerator = Callable[[], Generator[Any, float, None]]


def _idle_clock() -> Generator[Any, float, None]:
    yield


class _Clock:
    """The methods that a loop class gets in front of its own."""

    def __init__(self, generator: ClockGenerator | None = None) -> None:
        self._arming = True  # the loop's own constructor may ask for the real time
        super().__init__()
        self._check_clock_on_close = generator is not None
        self._clock_generator = (generator or _idle_clock)()
        next(self._clock_generator)
        self._virtual_now = 0.0
        self._virtual_heap: list[asyncio.TimerHandle] = []
        self._virtual_new: list[asyncio.TimerHandle] = []
        self._clock_error: BaseException | None = None
        self._arm()

    def _arm(self) -> None:
        # a loop may make call_at of its own time and call_later: for the pump they must be the real ones
        self._arming = True
        try:
            self._pump = super().call_at(0.0, self._turn)
        finally:
            self._arming = False

    def time(self) -> float:
        return super().time() if self._arming else self._virtual_now

    def advance_time(self, advance: float | None) -> None:
        """Move the clock forward; also called by tests themselves."""
        if advance:
            self._virtual_now += advance

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None) -> asyncio.TimerHandle:
        if self._arming:
            return super().call_later(delay, callback, *args, context=context)
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: Any = None) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)  # type: ignore[arg-type]
        if handle._source_traceback:  # type: ignore[attr-defined]
            del handle._source_traceback[-1]  # type: ignore[attr-defined]
        self._virtual_new.append(handle)
        handle._scheduled = True  # type: ignore[attr-defined]
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Called by TimerHandle.cancel; a cancelled timer is dropped when it is due."""

    def _turn(self) -> None:
        self._arm()
        while self._virtual_heap and self._virtual_heap[0].when() < self._virtual_now + RESOLUTION:
            handle = heapq.heappop(self._virtual_heap)
            handle._scheduled = False  # type: ignore[attr-defined]
            if not handle.cancelled():
                handle._run()
        new, self._virtual_new = self._virtual_new, []
        for handle in new:
            heapq.heappush(self._virtual_heap, handle)  # C2
        try:
            for handle in new:
                self.advance_time(self._clock_generator.send(handle.when()))
        except BaseException as error:  # C3: raised again by _raise_clock_error
            self._clock_error = error
            self.stop()

    def _raise_clock_error(self) -> None:
        if self._clock_error is not None:
            error, self._clock_error = self._clock_error, None
            if isinstance(error, StopIteration):
                error = AssertionError("a timer was made after the clock generator had finished")
            raise error

    def run_forever(self) -> None:
        super().run_forever()
        self._raise_clock_error()

    def run_until_complete(self, future: Any) -> Any:
        try:
            return super().run_until_complete(future)
        finally:
            self._raise_clock_error()

    def close(self) -> None:
        self._pump.cancel()
        super().close()
        if not self._check_clock_on_close:
            return
        self._check_clock_on_close = False
        try:
            self._clock_generator.send(0)
        except StopIteration:
            return
        raise AssertionError("Time generator is not finished")


def clock_loop_class(loop_class: type) -> type:
    """A subclass of the loop under test that runs on a generator's clock."""
    return type("ClockLoop", (_Clock, loop_class), {})
