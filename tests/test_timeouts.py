"""Timeouts: what CPython's own test_timeouts does not ask, of asyncio's and of ioxide's, on every loop.

Deadlines here are in the past or an hour away, so that no test waits and none depends on how fast it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import sys
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import ioxide
from outcomes import outcome, same_on_all_sides, shown
from sides import Side, side

__all__ = ("side",)

HOUR = 3600.0


def test_life_of_a_timeout(side: Side) -> None:
    async def main() -> None:
        async with side.timeout(HOUR) as timeout:
            assert type(timeout) is side.Timeout and isinstance(timeout, asyncio.Timeout)
            deadline = timeout.when()
            assert 0 < deadline - asyncio.get_running_loop().time() <= HOUR
            assert repr(timeout) == f"<Timeout [active] when={round(deadline, 3)}>"
            assert not timeout.expired()
            timeout.reschedule(None)
            assert timeout.when() is None
            assert repr(timeout) == "<Timeout [active] when=None>"
        assert repr(timeout) == "<Timeout [finished]>"
        assert not timeout.expired()

    side.run(main())


def test_expiry_in_the_next_turn_where_the_deadline_has_passed(side: Side) -> None:
    async def main() -> None:
        for make in (lambda: side.timeout(0), lambda: side.timeout(-1), lambda: side.timeout_at(0)):
            with pytest.raises(TimeoutError) as caught:
                async with make() as timeout:
                    await asyncio.sleep(HOUR)
            assert timeout.expired() and repr(timeout) == "<Timeout [expired]>"
            assert shown(caught.value)[3:5] == (shown(asyncio.CancelledError()),) * 2
            task = asyncio.current_task()
            assert task is not None and task.cancelling() == 0

    side.run(main())


def test_expiry_without_a_wait_is_no_error(side: Side) -> None:
    async def main() -> bool:
        async with side.timeout(0) as timeout:
            pass
        await asyncio.sleep(0)
        return timeout.expired()

    assert side.run(main()) is False


def test_body_that_swallows_the_cancellation(side: Side) -> None:
    async def main() -> tuple[bool, int]:
        async with side.timeout(0) as timeout:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(HOUR)
        task = asyncio.current_task()
        assert task is not None
        return timeout.expired(), task.cancelling()

    assert side.run(main()) == (True, 0)


def test_exceptions_that_leave() -> None:
    async def fails_in_handler() -> None:
        try:
            await asyncio.sleep(HOUR)
        finally:
            raise ValueError("in the handler")

    async def derives() -> None:
        class Derived(asyncio.CancelledError):
            pass

        try:
            await asyncio.sleep(HOUR)
        except asyncio.CancelledError:
            raise Derived("mine") from None

    async def fails_in_group() -> None:
        try:
            await asyncio.sleep(HOUR)
        except asyncio.CancelledError:
            try:
                raise KeyError("inner")
            except KeyError as error:
                inner = error
        try:
            try:
                raise asyncio.CancelledError("of somebody")
            except asyncio.CancelledError:
                raise ValueError("second")  # noqa: B904
        except ValueError as second:
            raise ExceptionGroup("both", [inner, second]) from None

    async def plain() -> None:
        raise ValueError("at once")

    for body in (fails_in_handler, derives, fails_in_group, plain):

        async def main(side: Side, body: Callable[[], Awaitable[None]] = body) -> Any:
            async def inside() -> None:
                async with side.timeout(0):
                    await body()

            try:
                await inside()
            except ExceptionGroup as group:
                return shown(group), [shown(error) for error in group.exceptions]
            except BaseException as error:
                return shown(error)

        same_on_all_sides(main)


def test_context_where_an_exception_is_being_handled() -> None:
    async def main(side: Side) -> Any:
        async def expire() -> None:
            async with side.timeout(0):
                await asyncio.sleep(HOUR)

        try:
            raise KeyError("before")
        except KeyError:
            return await outcome(expire())

    assert same_on_all_sides(main)[0] == "TimeoutError"


def test_nested_timeouts_expire_together_or_apart() -> None:
    async def main(side: Side) -> Any:
        log: list[Any] = []
        for outer, inner in ((0, 0), (0, HOUR), (HOUR, 0), (None, 0), (0, None)):
            try:
                async with side.timeout(outer) as first:
                    try:
                        async with side.timeout(inner) as second:
                            await asyncio.sleep(HOUR)
                    except TimeoutError as error:
                        log.append(("inner", shown(error)))
                        await asyncio.sleep(0)
            except TimeoutError as error:
                log.append(("outer", shown(error)))
            task = asyncio.current_task()
            assert task is not None
            log.append((first.expired(), second.expired(), task.cancelling()))
        return log

    same_on_all_sides(main)


def test_cancellation_by_others_is_not_a_timeout() -> None:
    async def main(side: Side) -> Any:
        log: list[Any] = []

        async def body() -> None:
            task = asyncio.current_task()
            assert task is not None
            try:
                async with side.timeout(0) as timeout:
                    task.cancel("by another")
                    await asyncio.sleep(HOUR)
            finally:
                log.append((timeout.expired(), task.cancelling()))

        async def entered_while_cancelling() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel("earlier")
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                async with side.timeout(0):
                    await asyncio.sleep(HOUR)

        for coroutine in (body(), entered_while_cancelling()):
            task = asyncio.ensure_future(coroutine)
            await asyncio.wait([task])
            log.append("cancelled" if task.cancelled() else shown(task.exception()))
        return log

    same_on_all_sides(main)


def test_reschedule(side: Side) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            async with side.timeout(None) as timeout:
                timeout.reschedule(loop.time() + HOUR)
                await asyncio.sleep(0)
                timeout.reschedule(when=loop.time() - 1)
                await asyncio.sleep(HOUR)
        async with side.timeout(0) as timeout:
            timeout.reschedule(loop.time() + HOUR)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert not timeout.expired()

    side.run(main())


def test_misuse() -> None:
    async def main(side: Side) -> Any:
        log: list[Any] = []

        async def note(awaitable: Awaitable[Any]) -> None:
            log.append(await outcome(awaitable))

        def call(function: Callable[..., Any], *arguments: Any) -> None:
            try:
                log.append(function(*arguments))
            except Exception as error:
                log.append(shown(error))

        timeout = side.timeout(HOUR)
        log.append(repr(timeout))
        call(timeout.reschedule, 1)
        async with timeout:
            await note(timeout.__aenter__())
        await note(timeout.__aenter__())
        call(timeout.reschedule, None)
        with pytest.raises(TimeoutError):
            async with side.timeout(0) as timeout:
                try:
                    await asyncio.sleep(HOUR)
                finally:
                    log.append((repr(timeout), timeout.expired()))
                    call(timeout.reschedule, 1)
        call(timeout.reschedule, 1)
        call(side.timeout, "1")
        await note(side.timeout_at("1").__aenter__())
        return log

    log = same_on_all_sides(main)
    assert log[1][1] == "Timeout has not been entered"
    assert log[2][1] == "Timeout has already been entered"
    assert log[4][1] == "Cannot change state of finished Timeout"


def test_outside_of_a_task_and_of_a_loop(side: Side) -> None:
    with pytest.raises(RuntimeError, match=r"^no running event loop$"):
        side.timeout(1)
    assert side.timeout_at(None).when() is None

    def step() -> str:
        with pytest.raises(RuntimeError) as caught:
            side.timeout(1).__aenter__().send(None)
        return str(caught.value)

    async def main() -> str:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()
        loop.call_soon(lambda: future.set_result(step()))
        return await future

    assert side.run(main()) == "Timeout should be used inside a task"


def test_coroutine_functions_and_signatures() -> None:
    for name in ("__aenter__", "__aexit__"):
        native, own = getattr(ioxide.Timeout, name), getattr(asyncio.Timeout, name)
        assert inspect.iscoroutinefunction(native) and inspect.iscoroutinefunction(own)
        assert list(inspect.signature(native).parameters) == list(inspect.signature(own).parameters)
    for name in ("timeout", "timeout_at"):
        native, own = getattr(ioxide, name), getattr(asyncio, name)
        assert list(inspect.signature(native).parameters) == list(inspect.signature(own).parameters)
    with pytest.raises(TypeError):
        ioxide.timeout_at()
    assert ioxide.timeout_at(when=None).when() is None


def test_attributes_that_asyncio_has(side: Side) -> None:
    async def main() -> None:
        timeout = side.Timeout(None)
        assert (timeout._state.value, timeout._when, timeout._task, timeout._timeout_handler) == ("created", None, None, None)
        async with timeout:
            assert timeout._task is asyncio.current_task()
            timeout.note = "a dictionary of its own"  # type: ignore[attr-defined]
            assert weakref.ref(timeout)() is timeout
        assert timeout._state.value == "finished" and timeout.note == "a dictionary of its own"

    side.run(main())


def test_derived_class_is_asked(side: Side) -> None:
    log: list[str] = []

    class Derived(side.Timeout):  # type: ignore[misc, name-defined]
        def _on_timeout(self) -> None:
            log.append("expired")
            super()._on_timeout()

        async def __aexit__(self, *details: Any) -> Any:
            log.append("left")
            return await super().__aexit__(*details)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with Derived(0):
                await asyncio.sleep(HOUR)

    side.run(main())
    assert log == ["expired", "left"]


def test_replaced_methods_of_the_loop_are_asked(side: Side) -> None:
    log: list[str] = []

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        def noting(name: str, own: Callable[..., Any]) -> Callable[..., Any]:
            def replacement(*arguments: Any) -> Any:
                log.append(name)
                return own(*arguments)

            return replacement

        loop.call_at, loop.time = noting("call_at", loop.call_at), noting("time", loop.time)
        async with side.timeout(HOUR):
            pass
        del loop.call_at, loop.time

    side.run(main())
    assert log == ["time", "time", "call_at"]


def test_a_foreign_task_and_a_task_that_is_none_of_asyncios(side: Side) -> None:
    async def body() -> bool:
        async with side.timeout(0) as timeout:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(HOUR)
        return timeout.expired()

    async def main() -> list[bool]:
        loop = asyncio.get_running_loop()
        classes = [asyncio.Task]
        if sys.version_info < (3, 14):  # since then a task in Python is nobody that current_task() in C knows
            classes.append(asyncio.tasks._PyTask)  # type: ignore[attr-defined]
        return [await class_(body(), loop=loop) for class_ in classes]

    assert set(side.run(main())) == {True}


def test_nothing_is_left_of_a_timeout(side: Side) -> None:
    async def main() -> int:
        async with side.timeout(HOUR) as timeout:
            reference = weakref.ref(timeout)
        del timeout
        gc.collect()
        for _ in range(20):
            async with side.timeout(None):
                pass
        return int(reference() is None)

    # A cancelled timer stays with the loop for a while, but without its callback.
    assert side.run(main()) == 1


def test_expiry_under_debug_mode(side: Side) -> None:
    async def main() -> None:
        async with side.timeout(0):
            await asyncio.sleep(HOUR)

    with pytest.raises(TimeoutError):
        side.run(main(), debug=True)
