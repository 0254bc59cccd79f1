"""`ioxide.run`, `ioxide.Runner` and `ioxide.new_event_loop`."""

from __future__ import annotations

import asyncio

import pytest

import ioxide


def test_run_returns_the_result_on_an_ioxide_loop() -> None:
    async def main() -> tuple[type, bool]:
        loop = asyncio.get_running_loop()
        return type(loop), loop.get_debug()

    assert ioxide.run(main()) == (ioxide.EventLoop, False)
    assert ioxide.run(main(), debug=True) == (ioxide.EventLoop, True)
    assert ioxide.run(main(), loop_factory=asyncio.SelectorEventLoop)[0] is asyncio.SelectorEventLoop


def test_run_inside_a_running_loop_raises_what_asyncio_raises() -> None:
    async def nothing() -> None:
        pass

    async def main(run: object) -> str:
        coroutine = nothing()
        with pytest.raises(RuntimeError) as caught:
            run(coroutine)  # type: ignore[operator]
        coroutine.close()
        return str(caught.value)

    assert ioxide.run(main(ioxide.run)) == asyncio.run(main(asyncio.run))


def test_runner_keeps_its_loop_between_runs() -> None:
    async def running() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    with ioxide.Runner() as runner:
        loop = runner.run(running())
        assert type(loop) is ioxide.EventLoop
        assert runner.run(running()) is loop is runner.get_loop()
    assert loop.is_closed()


def test_new_event_loop_is_new() -> None:
    first, second = ioxide.new_event_loop(), ioxide.new_event_loop()
    assert type(first) is ioxide.EventLoop and first is not second
    first.close()
    second.close()
