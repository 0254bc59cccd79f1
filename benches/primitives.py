"""Claim: asyncio's functions and primitives written in Rust cost a fraction of what they cost in Python above any loop.

Measures CPU time per operation of each row, names by names: ioxide's native ones on ioxide's loop, asyncio's on uvloop, asyncio's on
asyncio's loop, and asyncio's on ioxide's loop. tasks.py compares loops under the same Python functions; this compares both together.

Invariants:
 1. One process holds one subject; all of them are pinned to one core and only one runs at any time.
 2. The subjects take turns row by row, in an order that shifts with each round; each round has new processes.
 3. A row is a coroutine function of the module whose names are used and of a number of operations, which it does exactly. It leaves
    nothing scheduled behind. Warm-up runs the same row and is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib
import json
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import loops
import machine
import report
from processes import Failed, Process

# subject -> (the module whose names it uses, its loop)
SUBJECTS: dict[str, tuple[str, str]] = {
    "asyncio": ("asyncio", "asyncio"),
    "uvloop": ("asyncio", "uvloop"),
    "ioxide, asyncio's names": ("asyncio", "ioxide"),
    "ioxide": ("ioxide", "ioxide"),
}
BASELINE = "uvloop"
SUBJECT = "ioxide"


@dataclass(frozen=True)
class Row:
    operations: int
    run: Callable[[Any, int], Awaitable[None]]
    # How many times cheaper than the baseline ioxide promises to be.
    goal: float


async def nothing() -> None:
    return None


async def sleep_zero(names: Any, operations: int) -> None:
    """100 tasks give way to each other: the price of one step."""

    async def sleeper() -> None:
        for _ in range(operations // 100):
            await names.sleep(0)

    await names.gather(*[sleeper() for _ in range(100)])


async def timed_sleeps(names: Any, operations: int) -> None:
    """1000 sleeps at a time that end over ten milliseconds."""
    for _ in range(operations // 1000):
        await names.gather(*[names.sleep(0.001 + index % 100 / 10_000) for index in range(1000)])


def spawn_and_gather(batch: int) -> Callable[[Any, int], Awaitable[None]]:
    async def run(names: Any, operations: int) -> None:
        for _ in range(operations // batch):
            await names.gather(*[nothing() for _ in range(batch)])

    return run


async def create_task_and_await(names: Any, operations: int) -> None:
    for _ in range(operations):
        await names.create_task(nothing())


async def wait_for(names: Any, operations: int) -> None:
    """The future is not done when the wait begins, so each operation arms and disarms a deadline and really waits."""
    loop = asyncio.get_running_loop()
    for _ in range(operations):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await names.wait_for(future, 60)


async def as_completed(names: Any, operations: int) -> None:
    for _ in range(operations // 100):
        for earliest in names.as_completed([nothing() for _ in range(100)]):
            await earliest


async def cancelled_sleepers(names: Any, operations: int) -> None:
    """1000 tasks fall asleep for an hour and are cancelled."""
    for _ in range(operations // 1000):
        tasks = [names.create_task(names.sleep(3600)) for _ in range(1000)]
        await names.sleep(0)
        for task in tasks:
            task.cancel()
        await names.gather(*tasks, return_exceptions=True)


ROWS: dict[str, Row] = {
    "sleep(0)": Row(30_000, sleep_zero, 4),
    "gather of timed sleeps": Row(5_000, timed_sleeps, 7),
    "spawn+gather of 100": Row(10_000, spawn_and_gather(100), 10),
    "spawn+gather of 1000": Row(10_000, spawn_and_gather(1000), 10),
    "spawn+gather of 5000": Row(10_000, spawn_and_gather(5000), 6),
    "create_task+await": Row(10_000, create_task_and_await, 4),
    "wait_for": Row(5_000, wait_for, 8),
    "as_completed": Row(5_000, as_completed, 4),
    "cancelled sleepers": Row(5_000, cancelled_sleepers, 5),
}


async def measure(row: Row, names: Any, idle_socket: bool) -> float:
    """Nanoseconds of CPU per operation."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        if idle_socket:
            ends = [stack.enter_context(end) for end in socket.socketpair()]
            ends[0].setblocking(False)
            loop.add_reader(ends[0].fileno(), lambda: None)
            stack.callback(loop.remove_reader, ends[0].fileno())
        await row.run(names, max(row.operations // 5, 5_000))
        gc.collect()
        begun = time.process_time_ns()
        await row.run(names, row.operations)
        return (time.process_time_ns() - begun) / row.operations


def work(subject: str, idle_socket: bool) -> None:
    """The measured process: a row's name comes in, its figure or its failure goes out, one line each."""
    module, loop_name = SUBJECTS[subject]
    names = importlib.import_module(module)
    for line in sys.stdin:
        row = ROWS[line.strip()]
        try:
            answer: dict[str, Any] = {"cpu": loops.run(loop_name, lambda: measure(row, names, idle_socket))}
        except Exception as error:  # a subject that lacks a feature is a result to show, and the next row may work
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


Samples = dict[str, dict[str, dict[int, float]]]


def start(subject: str, options: argparse.Namespace) -> Process:
    command = [sys.executable, os.path.abspath(__file__), "--work", subject]
    if options.idle_socket:
        command.append("--idle-socket")
    return Process(subject, machine.MEASURED_CORE, command, dict(os.environ))


def collect(subjects: list[str], rows: list[str], options: argparse.Namespace) -> tuple[Samples, dict[str, str]]:
    samples: Samples = {subject: {row: {} for row in rows} for subject in subjects}
    failures: dict[str, str] = {}
    for number in range(options.rounds):
        shift = number % len(subjects)
        order = subjects[shift:] + subjects[:shift]
        with contextlib.ExitStack() as stack:
            workers = {subject: stack.enter_context(start(subject, options)) for subject in order}
            for row in rows:
                for subject in order:
                    try:
                        answer = json.loads(workers[subject].ask(row))
                    except Failed as failure:
                        answer = {"error": str(failure)}
                    if "error" in answer:
                        failures[f"{row} of {subject}"] = answer["error"]
                    else:
                        samples[subject][row][number] = answer["cpu"]
        print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
    return samples, failures


def figure(samples: dict[int, float]) -> str:
    return f"{min(samples.values()):.0f} ±{report.spread(list(samples.values())):.0f}%" if samples else "failed"


def show(samples: Samples, subjects: list[str], rows: list[str]) -> list[str]:
    """Prints the table; the rows that miss their goal."""
    lines, missed = [], []
    for row in rows:
        line = [row, *[figure(samples[subject][row]) for subject in subjects]]
        if {SUBJECT, BASELINE} <= set(subjects):
            ratio = report.paired_ratio(samples[BASELINE][row], samples[SUBJECT][row])
            if ratio is None or ratio < ROWS[row].goal:
                missed.append(row)
            line += ["failed" if ratio is None else f"{ratio:.1f}", f"{ROWS[row].goal:.1f} {'MISSED' if row in missed else 'met'}"]
        lines.append(line)
    headings = [f"{BASELINE} / {SUBJECT}", "goal"] if {SUBJECT, BASELINE} <= set(subjects) else []
    print("CPU nanoseconds per operation: minimum ±spread\n")
    print(report.table(["", *subjects, *headings], lines))
    return missed


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", default="", help="semicolon-separated, of: " + "; ".join(SUBJECTS))
    parser.add_argument("--rows", default="", help="comma-separated parts of rows' names; the rows: " + ", ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--idle-socket", action="store_true", help="with one registered socket on which nothing arrives")
    parser.add_argument("--json", metavar="FILE", help="write all samples there")
    parser.add_argument("--check", action="store_true", help="fail if ioxide misses a goal")
    parser.add_argument("--work", metavar="SUBJECT", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.work:
        work(options.work, options.idle_socket)
        return 0
    subjects = [subject.strip() for subject in options.subjects.split(";") if subject.strip()] or list(SUBJECTS)
    wanted = [part.strip() for part in options.rows.split(",")]
    rows = [row for row in ROWS if any(part in row for part in wanted)]
    if not rows or not set(subjects) <= set(SUBJECTS):
        raise SystemExit("no such row or subject; see --help")
    os.sched_setaffinity(0, {machine.CLIENT_CORE})
    versions = {subject: loops.version(SUBJECTS[subject][1]) for subject in subjects}
    report.heading("Functions and primitives" + (", idle socket" if options.idle_socket else ""), versions)
    samples, failures = collect(subjects, rows, options)
    missed = show(samples, subjects, rows)
    for where, reason in failures.items():
        print(f"failed: {where}: {reason}")
    report.write_json(options.json, {
        "claim": "primitives", "idle_socket": options.idle_socket, "subjects": versions, "rounds": options.rounds,
        "cpu_nanoseconds": samples, "failures": failures,
    })
    if options.check and missed:
        print(f"goal missed: {', '.join(missed)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
