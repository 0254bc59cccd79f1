"""gather(): what CPython's own tests do not ask, with the names of asyncio and of ioxide, on every loop."""

from __future__ import annotations

import asyncio
import gc
import inspect
import weakref
from typing import Any

import pytest

import ioxide
from outcomes import outcome, same_on_all_sides
from sides import Side, side

__all__ = ("side",)


async def value(result: object, turns: int = 0) -> object:
    for _ in range(turns):
        await asyncio.sleep(0)
    return result


async def failure(error: BaseException, turns: int = 0) -> object:
    await value(None, turns)
    raise error


def test_results_in_the_order_of_the_arguments() -> None:
    async def main(side: Side) -> Any:
        return await side.gather(value(1, 3), value(2), value(3, 1), side.sleep(0, 4), side.sleep(0.001, 5))

    assert same_on_all_sides(main) == [1, 2, 3, 4, 5]


def test_many_children() -> None:
    async def main(side: Side) -> Any:
        return await side.gather(*[value(number, number % 3) for number in range(500)])

    assert same_on_all_sides(main) == list(range(500))


def test_nothing_to_gather() -> None:
    async def main(side: Side) -> Any:
        gathering = side.gather()
        return gathering.done(), await gathering

    assert same_on_all_sides(main) == (False, []) or same_on_all_sides(main) == (True, [])


def test_the_same_awaitable_twice() -> None:
    async def main(side: Side) -> Any:
        future = asyncio.get_running_loop().create_future()
        future.set_result(7)
        coroutine = value(8)
        return await side.gather(future, coroutine, future, coroutine)

    assert same_on_all_sides(main) == [7, 8, 7, 8]


@pytest.mark.parametrize("return_exceptions", [False, True])
def test_exceptions(return_exceptions: bool) -> None:
    async def main(side: Side) -> Any:
        gathering = side.gather(
            value(1, 4), failure(ValueError("first"), 1), failure(KeyError("second"), 2), return_exceptions=return_exceptions
        )
        return repr(await outcome(gathering))

    same_on_all_sides(main)


@pytest.mark.parametrize("return_exceptions", [False, True])
@pytest.mark.parametrize("message", [None, "told"])
def test_a_cancelled_child(return_exceptions: bool, message: str | None) -> None:
    async def main(side: Side) -> Any:
        child = asyncio.ensure_future(value(1, 10))
        gathering = side.gather(value(2), child, return_exceptions=return_exceptions)
        await asyncio.sleep(0)
        child.cancel(message)
        return repr(await outcome(gathering)), gathering.cancelled(), gathering.done()

    same_on_all_sides(main)


@pytest.mark.parametrize("return_exceptions", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 5])
def test_cancelling_the_gathering(return_exceptions: bool, turns: int) -> None:
    async def main(side: Side) -> Any:
        async def stubborn() -> str:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError as error:
                log.append(repr(error))
            return "stayed"

        log: list[str] = []
        gathering = side.gather(value(2, 3), stubborn(), side.sleep(60), return_exceptions=return_exceptions)
        await value(None, turns)
        log.append(str(gathering.cancel(msg="enough")))
        log.append(str(gathering._cancel_requested))
        log.append(repr(await outcome(gathering)))
        log.append(str(gathering.cancel()))
        return log

    same_on_all_sides(main)


def test_cancelling_who_awaits_it() -> None:
    async def main(side: Side) -> Any:
        async def waiting() -> Any:
            return await side.gather(side.sleep(60), side.sleep(60))

        task = asyncio.create_task(waiting())
        await value(None, 3)
        task.cancel("outer")
        left = repr(await outcome(task))
        return left, task.cancelled(), len(asyncio.all_tasks())

    same_on_all_sides(main)


def test_order_of_events() -> None:
    async def main(side: Side) -> Any:
        log: list[str] = []
        loop = asyncio.get_running_loop()

        async def child(name: str, turns: int) -> None:
            for turn in range(turns):
                log.append(f"{name} {turn}")
                await side.sleep(0)

        gathering = side.gather(child("a", 2), child("b", 1))
        gathering.add_done_callback(lambda _: log.append("callback"))
        for number in range(6):
            loop.call_soon(log.append, f"soon {number}")
            await asyncio.sleep(0)
            log.append(f"turn {number} {gathering.done()}")
        return log

    same_on_all_sides(main)


def test_children_that_are_done_already() -> None:
    async def main(side: Side) -> Any:
        loop = asyncio.get_running_loop()
        done, failed = loop.create_future(), loop.create_future()
        done.set_result(1)
        failed.set_exception(ValueError("before"))
        first = side.gather(done)
        seen = [first.done(), await first]
        second = side.gather(done, failed)
        seen += [second.done(), await outcome(second)]
        third = side.gather(done, failed, return_exceptions=True)
        return repr([*seen, third.done(), await third])

    same_on_all_sides(main)


def test_a_bad_argument_leaves_the_others_alone() -> None:
    async def main(side: Side) -> Any:
        reports: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, report: reports.append(report["message"]))
        task = asyncio.create_task(failure(ValueError("unseen")))
        with pytest.raises(TypeError) as caught:
            side.gather(task, 1)
        await value(None, 4)
        del task
        gc.collect()
        return str(caught.value), reports

    same_on_all_sides(main)


def test_exceptions_after_the_first_are_not_reported() -> None:
    async def main(side: Side) -> Any:
        reports: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, report: reports.append(report["message"]))
        gathering = side.gather(failure(ValueError("first")), failure(KeyError("second"), 2))
        result = await outcome(gathering)
        await value(None, 4)
        del gathering
        gc.collect()
        return repr(result), reports

    same_on_all_sides(main)


def test_other_awaitables_and_futures_of_other_kinds() -> None:
    class Awaitable:
        def __await__(self) -> Any:
            yield from asyncio.sleep(0).__await__()
            return "awaited"

    async def main(side: Side) -> Any:
        future: asyncio.Future[str] = asyncio.Future()
        asyncio.get_running_loop().call_soon(future.set_result, "asyncio's")
        return await side.gather(Awaitable(), future, side.gather(value(1), value(2)), value(3))

    assert same_on_all_sides(main) == ["awaited", "asyncio's", [1, 2], 3]


def test_futures_of_two_loops() -> None:
    async def main(side: Side) -> Any:
        other = asyncio.new_event_loop()
        try:
            with pytest.raises(ValueError, match="different loop") as caught:
                side.gather(asyncio.get_running_loop().create_future(), other.create_future())
        finally:
            other.close()
        return str(caught.value)

    same_on_all_sides(main)


def test_under_debug_mode_and_a_task_factory(side: Side) -> None:
    async def main() -> Any:
        made: list[str] = []

        def factory(loop: Any, coroutine: Any, **keywords: Any) -> Any:
            made.append(coroutine.__name__)
            return asyncio.Task(coroutine, loop=loop, **keywords)

        asyncio.get_running_loop().set_task_factory(factory)
        return await side.gather(value(1), value(2)), made[:2]

    assert side.run(main()) == ([1, 2], ["value", "value"])
    assert side.run(main(), debug=True) == ([1, 2], ["value", "value"])


def test_overridden_create_task_is_honoured() -> None:
    class Loop(ioxide.EventLoop):
        made = 0

        def create_task(self, coroutine: Any, **keywords: Any) -> Any:
            type(self).made += 1
            return super().create_task(coroutine, **keywords)

    async def main() -> Any:
        before = Loop.made
        return await ioxide.gather(value(1), value(2)), Loop.made - before

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(main()) == ([1, 2], 2)


def test_what_it_is(side: Side) -> None:
    async def main() -> None:
        gathering = side.gather(value(1), value(2))
        assert isinstance(gathering, asyncio.Future)
        assert type(gathering).__name__ == "_GatheringFuture"
        assert repr(gathering) == "<_GatheringFuture pending>"
        assert len(gathering._children) == 2
        assert gathering._cancel_requested is False
        assert asyncio.isfuture(gathering)
        reference = weakref.ref(gathering)
        gathering.mark = 1
        assert await gathering == [1, 2]
        del gathering
        await asyncio.sleep(0)
        gc.collect()
        assert reference() is None

    side.run(main())
    assert not inspect.iscoroutinefunction(side.gather)
    assert str(inspect.signature(side.gather)) == "(*coros_or_futures, return_exceptions=False)"


def test_children_are_freed_with_it(side: Side) -> None:
    class Result:
        pass

    async def make(references: list[Any]) -> Result:
        result = Result()
        references.append(weakref.ref(result))
        return result

    async def main() -> None:
        references: list[Any] = []
        results = await side.gather(*[make(references) for _ in range(20)])
        assert all(reference() is not None for reference in references)
        del results
        await asyncio.sleep(0)
        gc.collect()
        assert all(reference() is None for reference in references)

    side.run(main())


def test_a_cancelled_gathering_has_retrieved_the_exceptions() -> None:
    async def main(side: Side) -> Any:
        reports: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reports.append(context["message"]))

        async def stubborn() -> None:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                raise ValueError("instead") from None

        gathering = side.gather(stubborn(), value(1, 5), return_exceptions=True)
        await asyncio.sleep(0)
        gathering.cancel()
        seen = (await outcome(gathering))[:2]
        del gathering
        gc.collect()
        return seen, reports

    assert same_on_all_sides(main)[1] == []
