"""wrap_future: asyncio's and ioxide's, on every loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import inspect
import threading
import weakref
from typing import Any

import pytest

import ioxide
from outcomes import outcome, same_on_all_sides, shown
from sides import Side, side

__all__ = ("side",)


def wrapped(side: Side) -> tuple[Any, Any]:
    source: concurrent.futures.Future[Any] = concurrent.futures.Future()
    return source, side.wrap_future(source, loop=asyncio.get_running_loop())


def test_signature() -> None:
    assert str(inspect.signature(ioxide.wrap_future)) == "(future, *, loop=None)"
    assert list(inspect.signature(asyncio.wrap_future).parameters) == ["future", "loop"]


def test_results_and_exceptions_arrive() -> None:
    async def main(side: Side) -> list[Any]:
        seen: list[Any] = []
        errors: list[BaseException] = [
            ValueError("value"),
            KeyboardInterrupt("interrupt"),
            concurrent.futures.CancelledError("cancelled", 1),
            concurrent.futures.InvalidStateError("state"),
            TimeoutError("late"),
        ]
        for error in errors:
            source, future = wrapped(side)
            threading.Thread(target=source.set_exception, args=(error,)).start()
            seen.append(await outcome(future))
        source, future = wrapped(side)
        threading.Thread(target=source.set_result, args=([1],)).start()
        seen.append((await future, future.done(), future.cancelled()))
        source, future = wrapped(side)
        source.set_running_or_notify_cancel()
        source.set_result(2)
        done_at_once = future.done()
        seen.append((await future, done_at_once))
        return seen

    assert same_on_all_sides(main)[0][0] == "ValueError"


def test_cancellation_goes_both_ways() -> None:
    async def main(side: Side) -> list[Any]:
        seen: list[Any] = []
        source, future = wrapped(side)
        seen.append((future.cancel("text"), future.cancelled(), source.cancelled()))
        await asyncio.sleep(0)
        seen.append(source.cancelled())
        source, future = wrapped(side)
        source.cancel()
        seen.append(await outcome(future))
        source, future = wrapped(side)
        source.set_running_or_notify_cancel()
        future.cancel()
        await asyncio.sleep(0)
        source.set_result(1)  # too late, and nobody minds
        await asyncio.sleep(0)
        return [*seen, source.cancelled(), source.result(), future.cancelled()]

    assert same_on_all_sides(main)[-3:] == [False, 1, True]


def test_what_is_no_concurrent_future() -> None:
    async def main(side: Side) -> list[Any]:
        future = asyncio.get_running_loop().create_future()
        future.set_result(1)
        seen: list[Any] = [side.wrap_future(future) is future]
        for value in (None, 7, "text"):
            with pytest.raises(AssertionError) as caught:
                side.wrap_future(value)
            seen.append(shown(caught.value))
        for arguments in ((), (future, None)):
            with pytest.raises(TypeError):
                side.wrap_future(*arguments)
        return seen

    assert same_on_all_sides(main)[1][1] == "concurrent.futures.Future is expected, got None"


def test_without_a_loop(side: Side) -> None:
    async def main() -> Any:
        source: concurrent.futures.Future[int] = concurrent.futures.Future()
        future = side.wrap_future(source)
        source.set_result(1)
        return future.get_loop() is asyncio.get_running_loop(), await future

    assert side.run(main()) == (True, 1)


def test_the_loops_create_future_is_asked(side: Side) -> None:
    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        made: list[Any] = []
        own = loop.create_future

        def create_future() -> Any:
            made.append(own())
            return made[-1]

        loop.create_future = create_future
        source: concurrent.futures.Future[int] = concurrent.futures.Future()
        future = side.wrap_future(source, loop=loop)
        del loop.create_future
        return made == [future]

    assert side.run(main())


def test_loop_that_is_closed_before_the_result(side: Side) -> None:
    source: concurrent.futures.Future[int] = concurrent.futures.Future()

    async def main() -> Any:
        return side.wrap_future(source)

    future = side.run(main())
    source.set_result(1)
    assert not future.done()


def test_futures_are_let_go_when_the_result_is_there() -> None:
    """ioxide's alone: a future of concurrent.futures keeps its callbacks, and asyncio's callbacks keep both futures."""

    async def main() -> Any:
        source: concurrent.futures.Future[int] = concurrent.futures.Future()
        future = ioxide.wrap_future(source)
        source.set_result(1)
        await future
        reference = weakref.ref(future)
        del future
        await asyncio.sleep(0)
        gc.collect()
        return reference()

    assert ioxide.run(main()) is None


@pytest.mark.parametrize("factory", ["asyncio", "uvloop"])
def test_on_other_loops_and_in_tasks_in_python(factory: str) -> None:
    make: Any = asyncio.SelectorEventLoop if factory == "asyncio" else pytest.importorskip("uvloop").new_event_loop

    async def wait() -> Any:
        source: concurrent.futures.Future[int] = concurrent.futures.Future()
        future = ioxide.wrap_future(source)
        threading.Thread(target=source.set_result, args=(5,)).start()
        return await future

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        task = asyncio.tasks._PyTask(wait(), loop=loop)  # type: ignore[attr-defined]
        return await wait(), await task

    with asyncio.Runner(loop_factory=make) as runner:
        assert runner.run(main()) == (5, 5)
