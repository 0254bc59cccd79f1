"""Claim: ioxide starts child processes faster than asyncio and uvloop, and its loop goes on meanwhile.

Milliseconds from the first start to the last exit of two hundred children started at once; CPU of the parent a child; the
longest time for which the loop did not run (`lag`) meanwhile. Cases: children without pipes, and with the output of each read
to its end. The limit is `subprocess.Popen` in a loop.

usage: subprocesses.py NAME CASE COUNT        the measured process

Invariants:
 1. A child that did not exit with 0, or whose output is another, fails the case.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import time

import loops
import worker
from suite import Context, Figures, Goal, Workload, each

LIMIT = "Popen"
CHILDREN = 200
ROWS = {"true": ["true"], "echo": ["echo", "output"]}
PIPES = {"echo"}
TICK_SECONDS = 0.0005


async def watch_lag(longest: list[float]) -> None:
    last = time.perf_counter()
    while True:
        await asyncio.sleep(TICK_SECONDS)
        now = time.perf_counter()
        longest[0] = max(longest[0], now - last - TICK_SECONDS)
        last = now


async def start_and_wait(row: str) -> None:
    pipe = subprocess.PIPE if row in PIPES else None
    process = await asyncio.create_subprocess_exec(*ROWS[row], stdout=pipe)
    output = await process.stdout.read() if process.stdout is not None else None
    await process.wait()
    if process.returncode != 0 or output != (b"output\n" if row in PIPES else None):
        raise SystemExit(f"a child of the row {row} failed")


async def start_all(row: str, count: int) -> None:
    await asyncio.gather(*(start_and_wait(row) for _ in range(count)))


async def many(row: str, count: int) -> dict[str, float]:
    """Time and CPU first, with nothing else to do; then the lag, which takes CPU of its own to watch."""
    await start_and_wait(row)
    start, cpu = time.perf_counter(), time.process_time()
    await start_all(row, count)
    took, used = time.perf_counter() - start, time.process_time() - cpu
    longest = [0.0]
    watching = asyncio.create_task(watch_lag(longest))
    await asyncio.sleep(0.05)
    longest[0] = 0.0
    await start_all(row, count)
    await asyncio.sleep(2 * TICK_SECONDS)
    watching.cancel()
    return {"wall_ms": took * 1e3, "cpu_ns": used / count * 1e9, "lag_ms": longest[0] * 1e3}


def by_popen(row: str, count: int) -> dict[str, float]:
    pipe = subprocess.PIPE if row in PIPES else None
    start, cpu = time.perf_counter(), time.process_time()
    children = [subprocess.Popen(ROWS[row], stdout=pipe) for _ in range(count)]
    for child in children:
        child.communicate()
    took, used = time.perf_counter() - start, time.process_time() - cpu
    return {"wall_ms": took * 1e3, "cpu_ns": used / count * 1e9, "lag_ms": took * 1e3}


def subject(name: str, row: str, count: int) -> None:
    """The measured process: prints its figures as one line."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    figures = by_popen(row, count) if name == LIMIT else loops.run(name, lambda: many(row, count))
    print(json.dumps(figures), flush=True)


def measure(name: str, context: Context, case: str) -> Figures:
    return worker.line_of(__file__, name, case, str(context.operations(CHILDREN, 5)))


WORKLOADS = [
    Workload(
        "subprocesses",
        "Two hundred child processes at once hold up nobody.",
        tuple(ROWS),
        each(measure),
        limits=(LIMIT,),
        figure="wall_ms",
        unit="milliseconds from the first start to the last exit",
        details=("cpu_ns", "lag_ms"),
        goals=(Goal("asyncio", 1.0), Goal(loops.BASELINE, 1.0)),
        short=("echo",),
        baseline=LIMIT,
    ),
]

if __name__ == "__main__":
    subject(sys.argv[1], sys.argv[2], int(sys.argv[3]))
