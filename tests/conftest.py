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
from certificates import Authority, make_authority
from ioxide._ioxide import _choose_files_backend as choose_files_backend

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


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A private certificate authority with certificates for a server at localhost and for a client."""
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(params=["directly", "through Python"])
def records_pass(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How ioxide moves records: by the library inside Python's `_ssl`, or by calls of `ssl.SSLObject`."""
    monkeypatch.setenv("IOXIDE_TLS_THROUGH_PYTHON", "1" if request.param == "through Python" else "0")
    return str(request.param)


@pytest.fixture(params=["auto", "inline", "uring", "threads"])
def files_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each way of working on files in turn, for files opened during the test."""
    monkeypatch.setenv("IOXIDE_FILES", request.param)
    chosen = choose_files_backend()
    assert chosen == ioxide.fs.backend()
    try:
        if (request.param, chosen) == ("uring", "threads"):
            pytest.skip("the kernel or a filter of system calls forbids io_uring here")
        assert chosen == request.param
        yield chosen
    finally:
        monkeypatch.undo()
        choose_files_backend()


@pytest.fixture(autouse=True)
def asyncio_is_untouched() -> Iterator[None]:
    """No test leaves ioxide installed in the process of the others."""
    yield
    ioxide.uninstall()
