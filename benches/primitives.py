"""Claim: asyncio's functions and primitives written in Rust cost a fraction of what they cost in Python above any loop.

Measures CPU time per operation of each row: ioxide as `ioxide run` gives it (its loop, its names placed in asyncio),
asyncio's names on uvloop, on asyncio's loop, and on ioxide's loop alone. tasks.py compares loops under the same Python
functions; this compares both together.

Invariants:
 1. One process holds one subject; all of them are pinned to one core and only one runs at any time.
 2. The subjects take turns row by row, in an order that shifts with each round; each round has new processes.
 3. A row is a coroutine function of a number of operations, which it does exactly, and of how many tasks take part at
    once. It leaves nothing scheduled behind. Warm-up runs the same row and is not counted.
 4. Every subject runs the same code: what `asyncio.sleep` is, the subject has decided before.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import gc
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

# subject -> (its loop, whether ioxide's names stand in asyncio)
SUBJECTS: dict[str, tuple[str, bool]] = {
    "asyncio": ("asyncio", False),
    "uvloop": ("uvloop", False),
    "ioxide's loop alone": ("ioxide", False),
    "ioxide": ("ioxide", True),
}
BASELINE = "uvloop"
SUBJECT = "ioxide"


@dataclass(frozen=True)
class Row:
    run: Callable[[int, int], Awaitable[None]]
    # How many times cheaper than the baseline ioxide promises to be.
    goal: float
    # Whether it matters how many tasks take part at once; else the row is run once.
    batched: bool = True
    operations: int = 10_000


async def nothing() -> None:
    return None


async def sleep_zero(operations: int, batch: int) -> None:
    """The tasks give way to each other: the price of one step."""

    async def sleeper() -> None:
        for _ in range(operations // batch):
            await asyncio.sleep(0)

    await asyncio.gather(*[sleeper() for _ in range(batch)])


async def timed_sleeps(operations: int, batch: int) -> None:
    """A hundred of the sleeps end in each millisecond."""
    for _ in range(operations // batch):
        await asyncio.gather(*[asyncio.sleep(0.001 + index / 100_000) for index in range(batch)])


async def spawn_and_gather(operations: int, batch: int) -> None:
    for _ in range(operations // batch):
        await asyncio.gather(*[nothing() for _ in range(batch)])


async def create_task_and_await(operations: int, batch: int) -> None:
    for _ in range(operations):
        await asyncio.create_task(nothing())


async def contended_lock(operations: int, batch: int) -> None:
    """The tasks want one lock and give way to each other while they hold it."""
    lock = asyncio.Lock()

    async def contender() -> None:
        for _ in range(operations // batch):
            async with lock:
                await asyncio.sleep(0)

    await asyncio.gather(*[contender() for _ in range(batch)])


async def semaphore(operations: int, batch: int) -> None:
    """As the contended lock, with ten places."""
    places = asyncio.Semaphore(10)

    async def contender() -> None:
        for _ in range(operations // batch):
            async with places:
                await asyncio.sleep(0)

    await asyncio.gather(*[contender() for _ in range(batch)])


async def event_fan_out(operations: int, batch: int) -> None:
    """The tasks wait for the same event; one operation is one task woken. They all wait for the next before it is set."""
    events = [asyncio.Event() for _ in range(operations // batch)]

    async def waiter() -> None:
        for event in events:
            await event.wait()

    waiters = [asyncio.create_task(waiter()) for _ in range(batch)]
    await asyncio.sleep(0)
    for event in events:
        event.set()
        await asyncio.sleep(0)
    await asyncio.gather(*waiters)


async def bounded_queue(operations: int, batch: int) -> None:
    """Eight places: producer and consumer take turns every eight items."""
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=8)

    async def producer() -> None:
        for item in range(operations):
            await queue.put(item)

    async def consumer() -> None:
        for _ in range(operations):
            await queue.get()

    await asyncio.gather(producer(), consumer())


async def task_group(operations: int, batch: int) -> None:
    for _ in range(operations // batch):
        async with asyncio.TaskGroup() as group:
            for _ in range(batch):
                group.create_task(nothing())


async def wait_for(operations: int, batch: int) -> None:
    """The future is not done when the wait begins, so each operation arms and disarms a deadline and really waits."""
    loop = asyncio.get_running_loop()
    for _ in range(operations):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await asyncio.wait_for(future, 60)


async def timeout(operations: int, batch: int) -> None:
    """As wait_for, by `async with`."""
    loop = asyncio.get_running_loop()
    for _ in range(operations):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        async with asyncio.timeout(60):
            await future


async def as_completed(operations: int, batch: int) -> None:
    for _ in range(operations // batch):
        for earliest in asyncio.as_completed([nothing() for _ in range(batch)]):
            await earliest


async def cancelled_sleepers(operations: int, batch: int) -> None:
    """The tasks fall asleep for an hour and are cancelled."""
    for _ in range(operations // batch):
        tasks = [asyncio.create_task(asyncio.sleep(3600)) for _ in range(batch)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def to_thread(operations: int, batch: int) -> None:
    for _ in range(operations):
        await asyncio.to_thread(int)


ROWS: dict[str, Row] = {
    "sleep(0)": Row(sleep_zero, 4, operations=30_000),
    "gather of timed sleeps": Row(timed_sleeps, 7, operations=5_000),
    "spawn+gather": Row(spawn_and_gather, 10),
    "create_task+await": Row(create_task_and_await, 4, batched=False),
    "contended lock": Row(contended_lock, 6),
    "semaphore": Row(semaphore, 6),
    "event fan-out": Row(event_fan_out, 5, operations=20_000),
    "bounded queue": Row(bounded_queue, 5, batched=False, operations=20_000),
    "task group": Row(task_group, 7),
    "wait_for": Row(wait_for, 8, batched=False, operations=5_000),
    "timeout": Row(timeout, 5, batched=False, operations=5_000),
    "as_completed": Row(as_completed, 4, operations=5_000),
    "cancelled sleepers": Row(cancelled_sleepers, 5, operations=5_000),
    "to_thread": Row(to_thread, 1.5, batched=False, operations=2_000),
}
# Where memory that is touched for the first time decides, less is promised.
GOALS_OF_BATCHES = {("spawn+gather", 5000): 6.0}


@dataclass(frozen=True)
class Measured:
    """A row and how many tasks take part in it."""

    row: str
    batch: int

    @property
    def label(self) -> str:
        return f"{self.row} of {self.batch}" if ROWS[self.row].batched else self.row

    @property
    def goal(self) -> float:
        return GOALS_OF_BATCHES.get((self.row, self.batch), ROWS[self.row].goal)


async def measure(row: Row, batch: int, idle_socket: bool) -> float:
    """Nanoseconds of CPU per operation."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        if idle_socket:
            ends = [stack.enter_context(end) for end in socket.socketpair()]
            ends[0].setblocking(False)
            loop.add_reader(ends[0].fileno(), lambda: None)
            stack.callback(loop.remove_reader, ends[0].fileno())
        await row.run(max(row.operations // 5, batch), batch)
        gc.collect()
        begun = time.process_time_ns()
        await row.run(row.operations, batch)
        return (time.process_time_ns() - begun) / row.operations


def work(subject: str, idle_socket: bool) -> None:
    """The measured process: a row's name and a batch come in, the figure or the failure goes out, one line each."""
    loop_name, with_names = SUBJECTS[subject]
    for line in sys.stdin:
        name, batch = json.loads(line)
        main = functools.partial(measure, ROWS[name], batch, idle_socket)
        try:
            answer: dict[str, Any] = {"cpu": loops.run(loop_name, main, with_names=with_names)}
        except Exception as error:  # a subject that lacks a feature is a result to show, and the next row may work
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


Samples = dict[str, dict[str, dict[int, float]]]


def start(subject: str, options: argparse.Namespace) -> Process:
    command = [sys.executable, os.path.abspath(__file__), "--work", subject]
    if options.idle_socket:
        command.append("--idle-socket")
    return Process(subject, machine.MEASURED_CORE, command, dict(os.environ))


def collect(subjects: list[str], rows: list[Measured], options: argparse.Namespace) -> tuple[Samples, dict[str, str]]:
    samples: Samples = {subject: {row.label: {} for row in rows} for subject in subjects}
    failures: dict[str, str] = {}
    for number in range(options.rounds):
        shift = number % len(subjects)
        order = subjects[shift:] + subjects[:shift]
        with contextlib.ExitStack() as stack:
            workers = {subject: stack.enter_context(start(subject, options)) for subject in order}
            for row in rows:
                for subject in order:
                    try:
                        answer = json.loads(workers[subject].ask(json.dumps([row.row, row.batch])))
                    except Failed as failure:
                        answer = {"error": str(failure)}
                    if "error" in answer:
                        failures[f"{row.label} of {subject}"] = answer["error"]
                    else:
                        samples[subject][row.label][number] = answer["cpu"]
        print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
    return samples, failures


def figure(samples: dict[int, float]) -> str:
    return f"{min(samples.values()):.0f} ±{report.spread(list(samples.values())):.0f}%" if samples else "failed"


def show(samples: Samples, subjects: list[str], rows: list[Measured]) -> list[str]:
    """Prints the table; the rows that miss their goal."""
    lines, missed = [], []
    for row in rows:
        line = [row.label, *[figure(samples[subject][row.label]) for subject in subjects]]
        if {SUBJECT, BASELINE} <= set(subjects):
            ratio = report.paired_ratio(samples[BASELINE][row.label], samples[SUBJECT][row.label])
            if ratio is None or ratio < row.goal:
                missed.append(row.label)
            verdict = "MISSED" if row.label in missed else "met"
            line += ["failed" if ratio is None else f"{ratio:.1f}", f"{row.goal:.1f} {verdict}"]
        lines.append(line)
    headings = [f"{BASELINE} / {SUBJECT}", "goal"] if {SUBJECT, BASELINE} <= set(subjects) else []
    print("CPU nanoseconds per operation: minimum ±spread\n")
    print(report.table(["", *subjects, *headings], lines))
    return missed


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", default="", help="semicolon-separated, of: " + "; ".join(SUBJECTS))
    parser.add_argument("--rows", default="", help="comma-separated parts of rows' names; the rows: " + ", ".join(ROWS))
    parser.add_argument("--batches", default="100,1000,5000", help="how many tasks at once, comma-separated")
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
    batches = [int(batch) for batch in options.batches.split(",")]
    rows = [
        Measured(row, batch)
        for row in ROWS if any(part in row for part in wanted)
        for batch in (batches if ROWS[row].batched else batches[:1])
    ]
    if not rows or not set(subjects) <= set(SUBJECTS):
        raise SystemExit("no such row or subject; see --help")
    os.sched_setaffinity(0, {machine.CLIENT_CORE})
    versions = {subject: loops.version(SUBJECTS[subject][0]) for subject in subjects}
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
