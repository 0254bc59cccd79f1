"""A measured process that does rows: one contender, one module of rows, told by lines on its standard input what to do.

usage: worker.py CONTENDER MODULE      each line is the JSON of a dictionary: row, batch, operations, idle_socket
Answers with one line of JSON: CPU and wall nanoseconds per operation, or `error`.

Invariants:
 1. Warm-up runs the same row on the same loop and is not counted; cyclic garbage is collected before the row is timed.
 2. A row is a coroutine function of a number of operations, which it does exactly, and of how many tasks take part at
    once. It leaves nothing scheduled behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import importlib
import json
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import loops
import machine
from processes import Failed, Process


def line_of(script: str, contender: str, *words: str) -> dict[str, float]:
    """The figures that one process of a script, as `script contender words`, prints as one line."""
    command = [sys.executable, os.path.abspath(script), contender, *words]
    with Process(contender, machine.MEASURED_CORE, command, loops.environment(contender)) as process:
        figures: dict[str, float] = json.loads(process.hear())
        return figures


@dataclass(frozen=True)
class Row:
    run: Callable[[int, int], Awaitable[None]]
    operations: int = 10_000
    # Whether it matters how many tasks take part at once; else the row is run with the first batch only.
    batched: bool = True
    # It sleeps: its wall time says nothing.
    timed: bool = False
    # How many times cheaper than uvloop ioxide promises to be: with native names, and the loop alone.
    goal: float = 1.3
    loop_goal: float | None = 1.3
    # In the largest batch, whose tasks no cache holds; None: the same.
    largest_goal: float | None = None


async def measure(row: Row, operations: int, batch: int, idle_socket: bool) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        if idle_socket:
            ends = [stack.enter_context(end) for end in socket.socketpair()]
            ends[0].setblocking(False)
            loop.add_reader(ends[0].fileno(), lambda: None)  # by number: rloop knows no other way
            stack.callback(loop.remove_reader, ends[0].fileno())
        await row.run(max(operations // 5, batch), batch)
        gc.collect()
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        await row.run(operations, batch)
        cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
    return {"cpu_ns": cpu / operations, "wall_ns": wall / operations, "threads": machine.threads("self")}


def work(contender: str, module: str) -> None:
    rows: dict[str, Row] = importlib.import_module(module).ROWS
    for line in sys.stdin:
        asked = json.loads(line)
        main = functools.partial(measure, rows[asked["row"]], asked["operations"], asked["batch"], asked["idle_socket"])
        try:
            answer: dict[str, Any] = loops.run(contender, main)
        except Exception as error:  # a contender that lacks a feature is a result to show, and the next row may work
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


@contextlib.contextmanager
def started(contender: str, module: str, environment: dict[str, str] | None = None) -> Iterator[Callable[..., dict[str, float]]]:
    """The worker of a contender, as a function of row, operations, batch and idle_socket, which gives the figures."""
    command = [sys.executable, os.path.abspath(__file__), contender, module]
    merged = {**loops.environment(contender), **(environment or {})}
    with Process(contender, machine.MEASURED_CORE, command, merged) as process:

        def ask(row: str, operations: int, batch: int = 1, idle_socket: bool = False) -> dict[str, float]:
            asked = {"row": row, "operations": operations, "batch": batch, "idle_socket": idle_socket}
            answer: dict[str, Any] = json.loads(process.ask(json.dumps(asked), patience=180))
            if "error" in answer:
                raise Failed(answer["error"])
            return {**answer, "peak_kib": machine.peak_kib(process.id)}

        yield ask


if __name__ == "__main__":
    work(*sys.argv[1:])
