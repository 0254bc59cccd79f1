"""What a workload is: its claim, its cases, who takes part, how one case is measured, and what ioxide promises.

A workload says how to measure; bench.py decides when, in which order and how often; pages.py shows what came out.

Invariants:
 1. A session belongs to one contender in one round. It measures case by case; what it started has ended when it is left.
 2. A figure is a number; `cpu_ns` is CPU nanoseconds per operation over all threads, `wall_ns` the same of time. Other names say
    their unit at their end: _us, _ms, _kib, per_second.
 3. What cannot be measured raises Failed with the reason.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any

import loops
import machine

Figures = dict[str, float]
Measure = Callable[[str], Figures]


@dataclass
class Context:
    """What the sessions of one run share: programs compiled once, servers started once, a folder, how long a load lasts."""

    seconds: float
    # Of 1: how much of the work of a full run is done by rows that count operations.
    scale: float
    stack: ExitStack
    folder: str
    kept: dict[str, Any] = field(default_factory=dict)

    @classmethod
    @contextlib.contextmanager
    def open(cls, seconds: float, scale: float):  # type: ignore[no-untyped-def]
        with ExitStack() as stack:
            # Short: the path of a Unix socket in it has little room.
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp"))
            yield cls(seconds, scale, stack, folder)

    def program(self, source: str, *libraries: str) -> str:
        """A program of c/, compiled when it is first asked for."""
        return self.once(source, lambda: machine.compile_c(source, self.folder, *libraries))

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]

    def server(self, name: str, start: Callable[[], AbstractContextManager[Any]]) -> Any:
        """What `start` gives, started when it is first asked for, ended with the run."""
        return self.once(name, lambda: self.stack.enter_context(start()))

    def operations(self, full: int, least: int = 1) -> int:
        return max(int(full * self.scale), least)


Session = Callable[[str, Context], AbstractContextManager[Measure]]


@dataclass(frozen=True)
class Goal:
    """In the cases, at most so many times what another costs, by the main figure, round by round; or at most so much."""

    # "": `at_most` is no ratio but the figure itself.
    against: str
    at_most: float
    # None: all cases.
    cases: tuple[str, ...] | None = None
    subject: str = loops.SUBJECT

    def holds_for(self, case: str) -> bool:
        return self.cases is None or case in self.cases


NO_DEARER_THAN_PEERS = tuple(Goal(peer, 1.0) for peer in ("asyncio", "uvloop", "rloop", "rsloop", "zuvloop"))


@dataclass(frozen=True)
class Workload:
    name: str
    claim: str
    cases: tuple[str, ...]
    session: Session
    contenders: tuple[str, ...] = tuple(loops.COMMON)
    # Not loops: the least that the work costs, and other ways to do it.
    limits: tuple[str, ...] = ()
    # The main figure: what tables show first, plots draw and goals compare. Less is better.
    figure: str = "cpu_ns"
    unit: str = "CPU nanoseconds per operation"
    # Other figures that a table of their own shows.
    details: tuple[str, ...] = ()
    goals: tuple[Goal, ...] = ()
    # What a short run measures; None: the workload is for full runs only.
    short: tuple[str, ...] | None = ()
    # What the plots and ratios are relative to; "": plots show the figure itself, ratios are to uvloop.
    baseline: str = loops.BASELINE
    # The cases that the plot shows; empty: those of a short run, or all.
    plotted: tuple[str, ...] = ()
    # The cases are steps of growth: drawn as lines.
    growth: bool = False
    # At most so many rounds: for what takes long and varies little.
    most_rounds: int = 1000
    # What must be importable in the measured process.
    packages: tuple[str, ...] = ()

    def chosen_cases(self, short: bool) -> tuple[str, ...]:
        if not short:
            return self.cases
        return () if self.short is None else self.short or self.cases


@contextlib.contextmanager
def nothing_to_keep(measure: Callable[[str, Context, str], Figures], contender: str, context: Context):  # type: ignore[no-untyped-def]
    yield lambda case: measure(contender, context, case)


def each(measure: Callable[[str, Context, str], Figures]) -> Session:
    """A session of cases that have nothing in common: measure(contender, context, case)."""
    return functools.partial(nothing_to_keep, measure)
