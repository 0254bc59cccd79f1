"""What is swapped so that test_asyncio tests another loop: first asyncio's names, then the test utilities.

`before_import` runs before a test module is imported, `after_import` on the imported module. Which tests are left
out is expected.toml's business; edits to single tests that look into CPython's loop are in edits.py.

S1. asyncio's submodules keep their own code: only the names below change, so the standard library above the loop
    (gather, streams, runners ...) is CPython's in mode `loop`.
S2. The loop under test is always of exactly its own class; the stand-in for SelectorEventLoop only makes it.
S3. With `--loop stdlib` the loops stay CPython's, the replaced utilities do not: a green run proves the utilities.
S4. Every turn of a CPython loop that is not the loop under test is reported.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
import threading
import types
import warnings
from asyncio import base_events, unix_events
from collections.abc import Callable
from typing import Any
from unittest import mock

import clock
import edits

# Private names of asyncio -> what takes their place in both modes: test_asyncio's parameterised C tests take their classes
# and functions from them. What mode `names` replaces besides is ioxide.native_names' business.
PRIVATE_NAMES: dict[str, str] = {
    "asyncio.futures._CFuture": "Future",
    "asyncio.tasks._CTask": "Task",
}
LOOPS = {"ioxide": ("ioxide", "EventLoop"), "uvloop": ("uvloop", "Loop"), "stdlib": ("asyncio", "SelectorEventLoop")}


class LoopSource:
    """Makes loops of the class under test and counts them."""

    def __init__(self, name: str) -> None:
        module, attribute = LOOPS[name]
        self.name = name
        self.is_cpython = name == "stdlib"
        self.loop_class: type = getattr(importlib.import_module(module), attribute)
        self.made = 0

    def new(self) -> Any:
        """A loop of exactly the class under test (S2)."""
        self.made += 1
        return self.loop_class()

    def stand_in(self) -> type:
        """What asyncio.SelectorEventLoop and asyncio.EventLoop become: a class, so that a test may subclass it."""
        source = self

        class Meta(type(self.loop_class)):  # type: ignore[misc]
            def __call__(cls, *arguments: Any, **keywords: Any) -> Any:
                if cls is not stand_in:
                    return super().__call__(*arguments, **keywords)
                return source.new()  # a selector that a test passes means nothing to another loop

            def __instancecheck__(cls, instance: object) -> bool:
                return issubclass(type(instance), cls)

            def __subclasscheck__(cls, subclass: type) -> bool:
                if cls is stand_in:
                    return type.__subclasscheck__(source.loop_class, subclass)
                return super().__subclasscheck__(subclass)

        stand_in: type = Meta("SelectorEventLoop", (self.loop_class,), {})
        return stand_in


def _asyncio_modules() -> list[types.ModuleType]:
    return [module for name, module in sorted(sys.modules.items()) if name.split(".")[0] == "asyncio"]


def _replace_everywhere(old: object, new: object) -> None:
    for module in _asyncio_modules():
        for name, value in list(vars(module).items()):
            if value is old:
                setattr(module, name, new)


def _replace_loops(source: LoopSource) -> None:
    stand_in = source.stand_in()
    _replace_everywhere(asyncio.SelectorEventLoop, stand_in)
    for policy in list(vars(unix_events).values()):
        if isinstance(policy, type) and "_loop_factory" in vars(policy):
            policy._loop_factory = stand_in  # also what a fresh default policy uses, after set_event_loop_policy(None)


def _replace_names(mode: str) -> None:
    ioxide = importlib.import_module("ioxide")
    if mode == "names":
        importlib.import_module("ioxide.install").native_names.place()
    for private, name in PRIVATE_NAMES.items():
        module, _, attribute = private.rpartition(".")
        if not hasattr(importlib.import_module(module), attribute):
            raise RuntimeError(f"{private} does not exist in this Python: PRIVATE_NAMES needs a row per version")
        setattr(importlib.import_module(module), attribute, getattr(ioxide, name))


def _report_foreign_turns(source: LoopSource, report: Callable[[str], None]) -> None:
    if source.is_cpython:
        return
    original = base_events.BaseEventLoop._run_once  # type: ignore[attr-defined]

    def _run_once(self: Any) -> None:
        if not isinstance(self, source.loop_class):
            report(f"{type(self).__module__}.{type(self).__qualname__}")
        original(self)

    base_events.BaseEventLoop._run_once = _run_once  # type: ignore[attr-defined]


def _let_patched_loggers_see_the_logger() -> None:
    """A test that patches `asyncio.base_events.logger` means the `asyncio` logger, wherever the loop's code lives."""
    patch_class: Any = mock._patch  # type: ignore[attr-defined]
    enter, leave = patch_class.__enter__, patch_class.__exit__
    methods = ("debug", "info", "warning", "error", "exception", "critical", "log")
    logger = logging.getLogger("asyncio")

    def is_logger_of_asyncio(patch: Any) -> bool:
        target = getattr(patch, "target", None)
        return isinstance(target, types.ModuleType) and target in _asyncio_modules() and patch.attribute == "logger"

    def __enter__(self: Any) -> Any:
        replacement = enter(self)
        if is_logger_of_asyncio(self):
            for method in methods:
                setattr(logger, method, getattr(replacement, method))
        return replacement

    def __exit__(self: Any, *details: Any) -> Any:
        if is_logger_of_asyncio(self):
            for method in methods:
                vars(logger).pop(method, None)
        return leave(self, *details)

    patch_class.__enter__, patch_class.__exit__ = __enter__, __exit__


def before_import(source: LoopSource, mode: str, report: Callable[[str], None]) -> None:
    """Swap asyncio's names; `report` is told the class of every other loop that makes a turn (S4)."""
    if not source.is_cpython:
        _replace_loops(source)
        _let_patched_loggers_see_the_logger()
    if source.name == "ioxide":
        _replace_names(mode)
    _report_foreign_turns(source, report)


def _join_child_watcher_threads() -> None:
    """What CPython's close_loop does up to 3.13: wait for the threads that wait for child processes."""
    from test import support

    if not hasattr(asyncio, "ThreadedChildWatcher"):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        policy = support.maybe_get_event_loop_policy()
        watcher = policy.get_child_watcher() if policy is not None else None
    for thread in list(getattr(watcher, "_threads", {}).values()):
        thread.join(timeout=support.SHORT_TIMEOUT)
        if thread.is_alive():
            raise RuntimeError(f"thread {thread} still alive: subprocess still running")


def _close_loop(loop: Any) -> None:
    """utils.TestCase.close_loop without CPython's private `_default_executor`."""
    has_workers = any(thread.name.startswith("asyncio_") for thread in threading.enumerate())
    if has_workers and not loop.is_closed() and hasattr(loop, "shutdown_default_executor"):
        loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    _join_child_watcher_threads()


def _replace_utilities(source: LoopSource) -> None:
    from test.test_asyncio import utils

    clock_loop_class = clock.clock_loop_class(source.loop_class)

    def new_test_loop(self: Any, gen: Any = None) -> Any:
        source.made += 1
        loop = clock_loop_class(gen)
        self.set_event_loop(loop)
        return loop

    utils.TestCase.new_test_loop = new_test_loop
    utils.TestCase.close_loop = staticmethod(_close_loop)


def _plain_loop_set_up(source: LoopSource) -> Callable[[Any], None]:
    """A setUp like the one that prepares BaseEventLoop with a mocked selector, for a loop that works without."""
    from test.test_asyncio import utils

    def setUp(self: Any) -> None:
        utils.TestCase.setUp(self)
        self.loop = source.new()
        if not hasattr(self.loop, "_run_once"):  # what some of these tests call for one turn of the loop
            self.loop._run_once = lambda loop=self.loop: utils.run_once(loop)
            self.addCleanup(vars(self.loop).pop, "_run_once", None)
        self.set_event_loop(self.loop)

    return setUp


def _adapt_base_events(module: Any, source: LoopSource) -> None:
    class BaseEvents(types.ModuleType):
        """asyncio.base_events as this test module sees it: with the loop under test for BaseEventLoop."""

        BaseEventLoop = asyncio.SelectorEventLoop

        def __getattr__(self, name: str) -> Any:
            return getattr(base_events, name)

    module.base_events = BaseEvents("asyncio.base_events")
    module.BaseEventLoopTests.setUp = _plain_loop_set_up(source)


def _adapt_pep492(module: Any, source: LoopSource) -> None:
    module.BaseTest.setUp = _plain_loop_set_up(source)


def _adapt_runners(module: Any, source: LoopSource) -> None:
    def new_loop(self: Any) -> Any:
        loop = source.new()
        loop.shutdown_ag_run = False

        async def shutdown_asyncgens() -> None:
            loop.shutdown_ag_run = True

        loop.shutdown_asyncgens = shutdown_asyncgens
        return loop

    module.BaseTest.new_loop = new_loop


def _adapt_tasks(module: Any) -> None:
    from test.test_asyncio import utils

    def _run_loop(self: Any, loop: Any) -> None:
        # CPython's asks `loop._ready`; no test has a chain of callbacks that is longer than this many turns
        for _ in range(20):
            utils.run_briefly(loop)

    module.GatherTestsBase._run_loop = _run_loop


def after_import(module: types.ModuleType, source: LoopSource) -> None:
    """Replace the utilities of an imported test module that reach into CPython's loop."""
    _replace_utilities(source)
    name = module.__name__.rpartition(".")[2]
    if name == "test_tasks":
        _adapt_tasks(module)
    if source.is_cpython:
        return
    adapt = {"test_base_events": _adapt_base_events, "test_pep492": _adapt_pep492, "test_runners": _adapt_runners}
    if name in adapt:
        adapt[name](module, source)
    edits.apply(module, LOOPS[source.name][0])
