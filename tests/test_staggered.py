"""staggered_race: asyncio's and ioxide's, on every loop."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import sys
import weakref
from asyncio.staggered import staggered_race
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import ioxide
from outcomes import outcome, shown
from sides import SIDES, Side, side

__all__ = ("side",)

Race = Callable[..., Awaitable[Any]]
Program = Callable[[Race], Awaitable[Any]]


def race_of(side: Side) -> Any:
    return staggered_race if side.names is asyncio else ioxide.staggered_race


def same_on_all_sides(program: Program) -> Any:
    """What a program does with asyncio's race on asyncio's loop; every other side must do the same."""
    expected = SIDES["asyncio"].run(program(staggered_race))  # type: ignore[arg-type]
    for name, each in SIDES.items():
        assert each.run(program(race_of(each))) == expected, name  # type: ignore[arg-type]
    return expected


def seen(answer: Any) -> Any:
    """A race's answer with its exceptions as they can be compared; an error that it raised as it is."""
    if not isinstance(answer, tuple) or len(answer) != 3:
        return answer
    result, index, exceptions = answer
    return result, index, [shown(exception) for exception in exceptions]


async def value(result: Any) -> Any:
    await asyncio.sleep(0)
    return result


async def fail(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


async def forever(log: list[str] | None = None) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        if log is not None:
            log.append("cancelled")


def test_signature() -> None:
    parameters = list(inspect.signature(staggered_race).parameters)
    assert str(inspect.signature(ioxide.staggered_race)) == "(coro_fns, delay, *, loop=None)"
    assert parameters == ["coro_fns", "delay", "loop"]
    assert inspect.iscoroutinefunction(ioxide.staggered_race)


def test_the_running_asyncios_race_is_known() -> None:
    """Otherwise its own coroutine runs, which is right and slower."""
    coroutine = ioxide.staggered_race([], None)
    assert type(coroutine).__module__ == "ioxide"
    coroutine.close()


def test_who_wins() -> None:
    async def program(race: Race) -> list[Any]:
        def later(result: Any) -> Callable[[], Any]:
            return lambda: value(result)

        broken = ValueError("broken")
        answers = [
            await race([], None),
            await race([later(None)], None),
            await race([later("first"), later("second")], None),
            await race((later(number) for number in range(3)), 30),
            await race([lambda: fail(broken), later("second"), later("third")], None),
            await race([lambda: fail(broken), lambda: fail(KeyError("key"))], 30),
            await race([forever, later("second"), later("third")], 0.01),
            await race([forever, forever, later("third")], delay=0),
            await race([lambda: fail(asyncio.CancelledError("text")), later("second")], None),
        ]
        return [seen(answer) for answer in answers]

    answers = same_on_all_sides(program)
    assert answers[0] == (None, None, [])
    assert answers[2] == ("first", 0, [None])
    assert [answer[1] for answer in answers] == [None, 0, 0, 0, 1, None, 1, 2, 1]


def test_losers_are_cancelled_and_nothing_is_left() -> None:
    async def program(race: Race) -> Any:
        log: list[str] = []
        before = asyncio.all_tasks()
        answer = await race([lambda: forever(log), lambda: forever(log), lambda: value("won")], 0)
        await asyncio.sleep(0)
        return seen(answer), log, asyncio.all_tasks() == before

    assert same_on_all_sides(program)[1:] == (["cancelled"] * 2, True)


def test_functions_that_are_none_and_raise() -> None:
    def broken() -> Any:
        raise ZeroDivisionError("called")

    async def program(race: Race) -> list[Any]:
        coroutines: list[Any] = [broken, lambda: None, lambda: 7, "text"]
        return [
            seen(await outcome(race(coroutines, None))),
            await outcome(race(5, None)),
            seen(await outcome(race([*coroutines, lambda: value(1)], None))),
        ]

    same_on_all_sides(program)


def test_iterable_that_raises() -> None:
    def functions() -> Any:
        yield lambda: fail(ValueError("first"))
        raise LookupError("no more")

    async def program(race: Race) -> Any:
        reports: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: reports.append(context["message"]))
        kind, text, members, *_ = await outcome(race(functions(), None))
        gc.collect()
        return kind, text, members, reports

    same_on_all_sides(program)


def test_cancelling_the_race() -> None:
    async def program(race: Race) -> Any:
        log: list[str] = []
        task = asyncio.ensure_future(race([lambda: forever(log), lambda: forever(log)], 0))
        while len(asyncio.all_tasks()) < 5:  # this one, the race, two that run and one that waits for its turn
            await asyncio.sleep(0)
        task.cancel("enough")
        return await outcome(task), log, task.cancelled()

    result = same_on_all_sides(program)
    assert result[0][0] == "CancelledError" and result[2]


def test_cancelled_at_once() -> None:
    async def program(race: Race) -> Any:
        called: list[int] = []

        async def note() -> None:
            called.append(1)

        task = asyncio.ensure_future(race([note], None))
        await asyncio.sleep(0)
        task.cancel()
        return await outcome(task), called

    same_on_all_sides(program)


@pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 13, 1),
    reason="with eager tasks asyncio's own race fails by an assertion or never ends there",
)
def test_eager_tasks() -> None:
    async def program(race: Race) -> Any:
        factory = getattr(asyncio, "eager_task_factory", None)
        asyncio.get_running_loop().set_task_factory(factory)

        async def at_once(result: Any) -> Any:
            return result

        return [
            seen(await outcome(race([lambda: at_once(1), lambda: at_once(2)], None))),
            seen(await outcome(race([lambda: fail(ValueError()), lambda: value(2)], None))),
            seen(await outcome(race([forever, lambda: at_once(3)], 0.01))),
        ]

    same_on_all_sides(program)


def test_arguments() -> None:
    async def program(race: Race) -> list[Any]:
        loop = asyncio.get_running_loop()
        answers = [
            await race([lambda: value(1)], delay=None, loop=loop),
            await race(coro_fns=[lambda: value(2)], delay=None, loop=None),
        ]
        wrong: list[tuple[Any, ...]] = [(), ([],), ([], None, loop)]
        for arguments in wrong:
            with pytest.raises(TypeError):
                race(*arguments)
        return answers

    same_on_all_sides(program)


def test_without_a_running_loop(side: Side) -> None:
    coroutine = race_of(side)([], None)
    with pytest.raises(RuntimeError, match=r"^no running event loop$"):
        coroutine.send(None)


def test_forgotten_race_is_collected() -> None:
    class Mark:
        pass

    loop = ioxide.new_event_loop()
    mark = Mark()

    async def wait(_: Any) -> None:
        await asyncio.Event().wait()

    loop.set_exception_handler(lambda _loop, _context: None)
    loop.create_task(ioxide.staggered_race([functools.partial(wait, mark)] * 2, 30))
    for _ in range(5):
        loop.run_until_complete(asyncio.sleep(0))
    reference = weakref.ref(mark)
    del mark
    loop.close()
    del loop
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("factory", ["asyncio", "uvloop"])
def test_on_other_loops_and_in_tasks_in_python(factory: str) -> None:
    make: Any = asyncio.SelectorEventLoop if factory == "asyncio" else pytest.importorskip("uvloop").new_event_loop

    async def race() -> Any:
        functions = [forever, lambda: fail(ValueError()), lambda: value(3)]
        return (await ioxide.staggered_race(functions, 0.01))[:2]

    async def main() -> Any:
        task = asyncio.tasks._PyTask(race(), loop=asyncio.get_running_loop())  # type: ignore[attr-defined]
        return await race(), await task

    with asyncio.Runner(loop_factory=make) as runner:
        assert runner.run(main()) == ((3, 2), (3, 2))


def test_create_connection_races() -> None:
    """Happy eyeballs: the second address wins where nobody listens on the first one."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def addresses(*_: Any, **__: Any) -> Any:
            return [(2, 1, 6, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]

        loop.getaddrinfo = addresses  # type: ignore[method-assign]
        transport, _ = await loop.create_connection(asyncio.Protocol, "host", port, happy_eyeballs_delay=0.01)
        peer = transport.get_extra_info("peername")
        transport.close()
        server.close()
        return peer == ("127.0.0.1", port)

    assert ioxide.run(main())
