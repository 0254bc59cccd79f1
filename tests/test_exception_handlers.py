"""The loop's exception handlers and the hooks of asynchronous generators: what is reported, how, where and in which context.

What it leaves to others: which exceptions reach a handler (test_callback_errors.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import re
import sys
import warnings
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

Loop = asyncio.AbstractEventLoop
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="outside")


def broken(*arguments: Any) -> Any:
    raise LookupError("broken")


def spin(loop: Loop) -> None:
    loop.run_until_complete(asyncio.sleep(0))


def messages(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "asyncio"]


def test_get_and_set(loop: Loop) -> None:
    assert loop.get_exception_handler() is None
    loop.set_exception_handler(broken)
    assert loop.get_exception_handler() is broken
    assert loop._exception_handler is broken  # type: ignore[attr-defined]
    loop._exception_handler = None  # type: ignore[attr-defined]
    assert loop.get_exception_handler() is None
    with pytest.raises(TypeError, match="A callable object or None is expected, got 1"):
        loop.set_exception_handler(1)  # type: ignore[arg-type]


def test_the_default_handler_logs_the_report(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    error = LookupError("it")
    loop.default_exception_handler({"message": "First", "zebra": 1, "exception": error, "apple": "two"})
    loop.default_exception_handler({})
    loop.default_exception_handler({"message": "", "exception": None})
    loop.call_exception_handler({"message": "Last"})
    assert messages(caplog) == [
        ("ERROR", "First\napple: 'two'\nzebra: 1"),
        ("ERROR", "Unhandled exception in event loop"),
        ("ERROR", "Unhandled exception in event loop"),
        ("ERROR", "Last"),
    ]
    first, second = caplog.records[0].exc_info, caplog.records[1].exc_info
    assert first == (LookupError, error, None)
    assert not second


def test_the_default_handler_shows_where_things_were_created(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.set_debug(True)
    future = loop.create_future()
    future.set_exception(LookupError("never retrieved"))
    del future
    gc.collect()
    loop.call_soon(loop.call_exception_handler, {"message": "Inside"})
    spin(loop)
    (_, first), (_, second) = messages(caplog)
    assert "source_traceback: Object created at (most recent call last):\n" in first
    assert "\n    future = loop.create_future()" in first
    assert second.startswith("Inside\nhandle_traceback: Handle created at (most recent call last):\n")
    assert 'call_soon(loop.call_exception_handler, {"message": "Inside"})' in second.splitlines()[-1]


def test_a_handler_gets_the_loop_and_the_report(loop: Loop) -> None:
    calls: list[Any] = []
    loop.set_exception_handler(lambda *arguments: calls.append(arguments))
    report = {"message": "What"}
    loop.call_exception_handler(report)
    assert calls == [(loop, report)] and calls[0][1] is report


def test_a_handler_runs_inside_except(loop: Loop) -> None:
    """traceback.print_exc() and logger.exception() work in a handler; what it raises is chained."""
    seen: list[Any] = []

    def handler(loop: Loop, report: dict[str, Any]) -> None:
        seen.append((sys.exc_info()[1], report["exception"]))

    loop.set_exception_handler(handler)
    loop.call_soon(broken)
    future = loop.create_future()
    future.add_done_callback(broken)
    future.set_result(None)
    spin(loop)
    assert len(seen) == 2
    for handled, reported in seen:
        assert handled is reported
    assert sys.exc_info() == (None, None, None)


def test_a_broken_handler(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.set_exception_handler(broken)
    loop.call_exception_handler({"message": "What"})
    ((_, message),) = messages(caplog)
    assert message == "Unhandled error in exception handler\ncontext: {'message': 'What'}"
    assert caplog.records[0].exc_info and isinstance(caplog.records[0].exc_info[1], LookupError)


def subclass(loop_factory: Callable[[], Loop]) -> Any:
    probe = loop_factory()
    probe.close()
    return type(probe)


def test_broken_default_handlers(loop_factory: Callable[[], Loop], caplog: pytest.LogCaptureFixture) -> None:
    class Broken(subclass(loop_factory)):  # type: ignore[misc]
        def default_exception_handler(self, context: dict[str, Any]) -> None:
            raise ZeroDivisionError("default")

    with contextlib.closing(Broken()) as loop:
        loop.call_exception_handler({"message": "What"})
        loop.set_exception_handler(broken)
        loop.call_exception_handler({"message": "What"})
    assert messages(caplog) == [
        ("ERROR", "Exception in default exception handler"),
        (
            "ERROR",
            "Exception in default exception handler while handling an unexpected error in custom exception handler",
        ),
    ]
    errors = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert [type(error) for error in errors] == [ZeroDivisionError] * 2
    assert isinstance(errors[1] and errors[1].__context__, LookupError)


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["handler", "default"])
def test_leaving_out_of_a_handler(loop_factory: Callable[[], Loop], where: str, exception: type[BaseException]) -> None:
    def leave(*arguments: Any) -> None:
        raise exception("now")

    class Leaving(subclass(loop_factory)):  # type: ignore[misc]
        default_exception_handler = leave

    with contextlib.closing(Leaving()) as loop:
        if where == "handler":
            loop.set_exception_handler(leave)
        with pytest.raises(exception, match="now"):
            loop.call_exception_handler({"message": "What"})


def test_an_overridden_call_exception_handler(loop_factory: Callable[[], Loop]) -> None:
    calls: list[Any] = []

    class Own(subclass(loop_factory)):  # type: ignore[misc]
        def call_exception_handler(self, context: dict[str, Any]) -> None:
            calls.append(context["message"])

    with contextlib.closing(Own()) as loop:
        loop.call_soon(broken)
        spin(loop)
        loop.call_exception_handler = lambda context: calls.append("instance")
        loop.call_soon(broken)
        spin(loop)
    assert len(calls) == 2 and calls[0].startswith("Exception in callback broken(") and calls[1] == "instance"


def test_the_context_of_a_handler(loop: Loop) -> None:
    """From 3.12 on that of the task or handle; before, that of whoever reports."""
    seen: list[str] = []
    loop.set_exception_handler(lambda loop, report: seen.append(VARIABLE.get()))
    inside = contextvars.copy_context()
    inside.run(VARIABLE.set, "inside")
    loop.call_soon(broken, context=inside)
    spin(loop)

    async def work() -> None:
        pass

    task = inside.run(loop.create_task, work())
    loop.run_until_complete(task)
    loop.call_exception_handler({"message": "What", "task": task})
    loop.call_exception_handler({"message": "What", "future": task})
    loop.call_exception_handler({"message": "What", "future": loop.create_future()})
    loop.call_exception_handler({"message": "What", "handle": "no handle"})
    expected = "inside" if sys.version_info >= (3, 12) else "outside"
    assert seen == [expected] * 3 + ["outside"] * 2


def test_contexts_that_are_none(loop: Loop) -> None:
    """Whatever has a run() is taken; what has none is reported."""
    reports: list[Any] = []
    loop.set_exception_handler(lambda loop, report: reports.append(repr(report["exception"])))

    class Own:
        def run(self, callback: Callable[..., Any], *arguments: Any) -> None:
            called.append(arguments)

    called: list[Any] = []
    loop.call_soon(called.append, "soon", context=Own())
    loop.call_soon(print, context="text")
    future = loop.create_future()
    future.add_done_callback(print, context=Own())  # type: ignore[arg-type]
    future.add_done_callback(print, context=1)  # type: ignore[arg-type]
    future.set_result(None)
    spin(loop)
    spin(loop)
    assert called == [("soon",), (future,)]
    assert reports == [
        "AttributeError(\"'str' object has no attribute 'run'\")",
        "AttributeError(\"'int' object has no attribute 'run'\")",
    ]


async def endless() -> AsyncGenerator[int, None]:
    while True:
        yield 1


async def begin(generator: AsyncGenerator[int, None]) -> None:
    await generator.__anext__()


async def failing() -> AsyncGenerator[int, None]:
    try:
        yield 1
    finally:
        raise LookupError("while closing")


def test_generators_are_closed_with_the_loop(loop: Loop) -> None:
    closed: list[int] = []

    async def counted(number: int) -> AsyncGenerator[int, None]:
        try:
            yield number
        finally:
            await asyncio.sleep(0)
            closed.append(number)

    generators = [counted(number) for number in range(5)]

    async def main() -> None:
        for generator in generators:
            await generator.__anext__()

    loop.run_until_complete(main())
    assert set(loop._asyncgens) == set(generators)  # type: ignore[attr-defined]
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert sorted(closed) == [0, 1, 2, 3, 4]
    assert not loop._asyncgens and loop._asyncgens_shutdown_called  # type: ignore[attr-defined]
    loop.run_until_complete(loop.shutdown_asyncgens())


def test_a_generator_that_fails_to_close_is_reported(loop: Loop) -> None:
    reports: list[Any] = []
    loop.set_exception_handler(lambda loop, report: reports.append(report))
    generator = failing()
    loop.run_until_complete(begin(generator))
    loop.run_until_complete(loop.shutdown_asyncgens())
    (report,) = reports
    assert set(report) == {"message", "exception", "asyncgen"}
    assert report["asyncgen"] is generator and str(report["exception"]) == "while closing"
    assert re.fullmatch(
        r"an error occurred during closing of asynchronous generator <async_generator object failing at 0x\w+>",
        report["message"],
    )


def test_a_dropped_generator_is_closed_by_a_task(loop: Loop) -> None:
    closed: list[str] = []

    async def generate() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.append("closed")

    async def main() -> None:
        generator = generate()
        await generator.__anext__()
        del generator
        gc.collect()
        while not closed:
            await asyncio.sleep(0)

    loop.run_until_complete(asyncio.wait_for(main(), 20))
    assert closed == ["closed"]


def test_a_generator_that_begins_after_shutdown_warns(loop: Loop) -> None:
    loop.run_until_complete(loop.shutdown_asyncgens())

    async def main() -> AsyncGenerator[int, None]:
        generator = endless()
        await generator.__anext__()
        return generator

    with pytest.warns(ResourceWarning, match=r"generator <.*endless.*> was scheduled after loop.shutdown_asyncgens\(\)"):
        generator = loop.run_until_complete(main())
    loop.run_until_complete(generator.aclose())


def test_a_generator_dropped_after_close_is_let_go(loop: Loop) -> None:
    generator = endless()
    loop.run_until_complete(begin(generator))
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del generator
        gc.collect()


def test_hooks_are_given_back(loop: Loop) -> None:
    before = sys.get_asyncgen_hooks()
    inside: list[Any] = []
    loop.call_soon(lambda: inside.append(sys.get_asyncgen_hooks()))
    spin(loop)
    assert inside[0].firstiter == loop._asyncgen_firstiter_hook  # type: ignore[attr-defined]
    assert inside[0].finalizer == loop._asyncgen_finalizer_hook  # type: ignore[attr-defined]
    assert sys.get_asyncgen_hooks() == before


def test_only_asyncios_logger_is_used(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    loop.call_exception_handler({"message": "What"})
    assert {record.name for record in caplog.records} == {"asyncio"}
