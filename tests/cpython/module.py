"""Runs one module of the interpreter's test_asyncio in this process and writes what happens to an event file.

Started by run.py, one process a module; run.py reads the events and starts another process after a hang or a crash.

M1. Every event is one line written with one write, so that nothing is lost when the process dies.
M2. The order of tests is that of unittest's loader, so a test's index means the same in every process.
M3. The watchdog is a C thread that needs no GIL: it writes all tracebacks and ends the process.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import os
import traceback
import unittest
from types import TracebackType
from typing import Any

import expected
import swap

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]
STDERR = 2  # the descriptor: tests replace sys.stderr


class Events:
    """The event file (M1)."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._process = os.getpid()

    def write(self, kind: str, **fields: object) -> None:
        # a forked child that falls back into the test run must not report its parent's tests a second time
        if os.getpid() == self._process or kind == "foreign":
            os.write(self._descriptor, json.dumps({"event": kind, **fields}).encode() + b"\n")


def test_name(test: unittest.TestCase) -> str:
    """`Class.method`; for a failed setUpClass or setUpModule the words of unittest."""
    return ".".join(test.id().split(".")[-2:]) if isinstance(test, unittest.TestCase) else str(test)


class Result(unittest.TestResult):
    """Writes one start and one outcome event a test, and arms the watchdog for each."""

    def __init__(self, events: Events, indexes: dict[str, int], source: swap.LoopSource, test_timeout: float) -> None:
        super().__init__()
        self._source = source
        self._events = events
        self._indexes = indexes
        self._test_timeout = test_timeout
        self._outcome = "passed"
        self._detail = ""
        self._summary = ""
        self._running = False

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._outcome, self._summary, self._detail, self._running = "passed", "", "", True
        self._events.write("start", test=test_name(test), index=self._indexes[test_name(test)])
        faulthandler.dump_traceback_later(self._test_timeout, exit=True, file=STDERR)

    def stopTest(self, test: unittest.TestCase) -> None:
        # re-armed rather than cancelled: class and module fixtures between two tests may hang, too
        faulthandler.dump_traceback_later(self._test_timeout, exit=True, file=STDERR)
        self._running = False
        self._events.write(
            "stop",
            test=test_name(test),
            outcome=self._outcome,
            summary=self._summary,
            detail=self._detail,
            loops_made=self._source.made,
        )
        super().stopTest(test)

    def _set(self, test: unittest.TestCase, outcome: str, summary: str, detail: str = "") -> None:
        if not self._running:  # a fixture of a class or of the module
            name = str(test)
            self._events.write("start", test=name, index=-1)
            self._events.write("stop", test=name, outcome=outcome, summary=summary, detail=detail)
        elif self._outcome != "failed":
            self._outcome, self._summary, self._detail = outcome, summary, detail

    def _failed(self, test: unittest.TestCase, error: ExcInfo) -> None:
        # of a message of many lines the first says which exception it is
        summary = traceback.format_exception_only(*error[:2])[-1].splitlines()[0]
        self._set(test, "failed", summary, "".join(traceback.format_exception(*error)))

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        self._failed(test, err)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._failed(test, err)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self._failed(test, err)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._set(test, "skipped", reason)

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self._set(test, "failed", "CPython marks this test as an expected failure, and it passed")


def flatten(suite: unittest.TestSuite) -> list[unittest.TestCase]:
    """All tests of a suite, in order."""
    tests: list[unittest.TestCase] = []
    for item in suite:
        tests.extend(flatten(item) if isinstance(item, unittest.TestSuite) else [item])
    return tests


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("--loop", required=True)
    parser.add_argument("--mode", required=True)
    parser.add_argument("--events", required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--pattern", action="append", default=[])
    parser.add_argument("--test-timeout", type=float, required=True)
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


def select(arguments: argparse.Namespace, events: Events, tests: list[unittest.TestCase]) -> list[unittest.TestCase]:
    """The tests to run now; those that a row leaves out are reported as skipped instead."""
    rows = expected.load(arguments.loop, arguments.mode)
    chosen: list[unittest.TestCase] = []
    for index, test in enumerate(tests):
        name = test_name(test)
        if index < arguments.first or (arguments.pattern and not any(part in name for part in arguments.pattern)):
            continue
        row = expected.find(rows, arguments.module, name)
        if arguments.list:
            events.write("listed", test=name, expect=row.outcome if row else "pass", reason=row.reason if row else "")
        elif row is not None and row.outcome == "skip":
            events.write("left_out", test=name, reason=row.reason)
        else:
            chosen.append(test)
    return chosen


def main() -> None:
    arguments = parse_arguments()
    events = Events(arguments.events)
    source = swap.LoopSource(arguments.loop)
    current: list[str] = []

    def report_foreign(loop_class: str) -> None:
        if current != [loop_class]:
            current[:] = [loop_class]
            events.write("foreign", loop=loop_class)

    class CurrentResult(Result):
        def startTest(self, test: unittest.TestCase) -> None:
            current.clear()  # each test reports a foreign loop once
            super().startTest(test)

    faulthandler.enable(file=STDERR)
    faulthandler.dump_traceback_later(arguments.test_timeout, exit=True, file=STDERR)
    swap.before_import(source, arguments.mode, report_foreign)
    module = importlib.import_module(f"test.test_asyncio.{arguments.module}")
    swap.after_import(module, source)
    tests = flatten(unittest.defaultTestLoader.loadTestsFromModule(module))
    indexes = {test_name(test): index for index, test in enumerate(tests)}
    if len(indexes) != len(tests):
        raise RuntimeError("two tests of one module have the same name")
    suite = unittest.TestSuite(select(arguments, events, tests))
    del tests
    suite.run(CurrentResult(events, indexes, source, arguments.test_timeout))
    events.write("end")
    # still armed: threads or exit handlers that never finish end the process with status 1


if __name__ == "__main__":
    main()
