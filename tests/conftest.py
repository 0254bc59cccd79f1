"""Fixtures of all tests: the same test on two loops.

A test that asks for `loop_factory`, `loop` or `run` runs twice: on asyncio, which is the oracle, and on ioxide. So a
wrong expectation fails on asyncio, and a difference fails on ioxide alone.

Invariants
1. Only these fixtures make a difference between the two; a test never asks on which of them it runs.
2. A loop that a test gets is closed after it, and nothing of it is left running.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

import ioxide

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
Run = Callable[..., Any]

FACTORIES: dict[str, LoopFactory] = {"asyncio": asyncio.SelectorEventLoop, "ioxide": ioxide.new_event_loop}


@pytest.fixture(params=FACTORIES)
def loop_factory(request: pytest.FixtureRequest) -> LoopFactory:
    """What makes a new event loop: asyncio's, then ioxide's."""
    return FACTORIES[request.param]


@pytest.fixture
def loop(loop_factory: LoopFactory) -> Iterator[asyncio.AbstractEventLoop]:
    """A new loop that is not running; the test may close it."""
    loop = loop_factory()
    try:
        yield loop
    finally:
        if not loop.is_closed():
            loop.close()
        gc.collect()  # what was never awaited or retrieved is reported in this test, not in the next one


@pytest.fixture
def run(loop_factory: LoopFactory) -> Run:
    """Runs a coroutine as asyncio.run() does, on a new loop, and returns its result."""

    def run(main: Coroutine[Any, Any, Any], *, debug: bool | None = None) -> Any:
        try:
            with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
                return runner.run(main)
        finally:
            gc.collect()

    return run


@pytest.fixture(autouse=True)
def asyncio_is_untouched() -> Iterator[None]:
    """No test leaves ioxide installed in the process of the others."""
    yield
    ioxide.uninstall()
