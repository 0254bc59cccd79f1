"""Claim: ioxide starts child processes faster than asyncio and uvloop, and its loop goes on meanwhile.

Measures, loop by loop: milliseconds from the first start to the last exit of many children started at once; CPU of the parent
a child; the longest time for which the loop did not run (`lag`) meanwhile. Rows: children without pipes, and with the output of
each read to its end. Beside them stands `Popen`: `subprocess.Popen` in a loop, which is the limit for all that use it.

Invariants:
 1. Each round measures each loop in a new process, one right after the other.
 2. A child that did not exit with 0, or whose output is another, fails the row.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import loops
import machine
import report
from processes import Failed, Process

LIMIT = "Popen"
LAG_GOAL_MS = 5.0
ROWS = {"true": ["true"], "echo": ["echo", "output"]}
PIPES = {"echo"}
TICK_SECONDS = 0.0005
# {row: {figure: {loop: {round: value}}}}
Samples = dict[str, dict[str, dict[str, dict[int, float]]]]


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
    return {"ms": took * 1e3, "CPU µs a child": used / count * 1e6, "lag ms": longest[0] * 1e3}


def by_popen(row: str, count: int) -> dict[str, float]:
    pipe = subprocess.PIPE if row in PIPES else None
    start, cpu = time.perf_counter(), time.process_time()
    children = [subprocess.Popen(ROWS[row], stdout=pipe) for _ in range(count)]
    for child in children:
        child.communicate()
    took, used = time.perf_counter() - start, time.process_time() - cpu
    return {"ms": took * 1e3, "CPU µs a child": used / count * 1e6, "lag ms": took * 1e3}


def subject(name: str, row: str, count: int) -> None:
    """The measured process: prints its figures as one line."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    figures = by_popen(row, count) if name == LIMIT else loops.run(name, lambda: many(row, count))
    print(json.dumps(figures), flush=True)


def measure(name: str, row: str, count: int) -> dict[str, float]:
    command = [sys.executable, os.path.abspath(__file__), "--subject", name, "--rows", row, "--children", str(count)]
    with Process(name, machine.MEASURED_CORE, command) as process:
        figures: dict[str, float] = json.loads(process.hear())
        return figures


def collect(names: list[str], rows: list[str], options: argparse.Namespace) -> tuple[Samples, dict[str, str]]:
    samples: Samples = {}
    failures: dict[str, str] = {}
    for number in range(options.rounds):
        for row in rows:
            for place in range(len(names)):
                name = names[(place + number) % len(names)]
                try:
                    figures = measure(name, row, options.children)
                except Failed as failure:
                    failures[f"{row} on {name}"] = str(failure)
                    continue
                for figure, value in figures.items():
                    samples.setdefault(row, {}).setdefault(figure, {}).setdefault(name, {})[number] = value
    return samples, failures


def goals(by_figure: dict[str, dict[str, dict[int, float]]]) -> dict[str, bool]:
    met = {}
    for other in ("asyncio", "uvloop"):
        ratio = report.paired_ratio(by_figure["ms"].get(loops.SUBJECT, {}), by_figure["ms"].get(other, {}))
        if ratio is not None:
            met[f"{ratio:.2f} of {other}'s time (goal: less than 1)"] = ratio < 1
    lag = by_figure["lag ms"].get(loops.SUBJECT)
    if lag:
        median = statistics.median(lag.values())
        met[f"lag {median:.1f} ms (goal: less than {LAG_GOAL_MS:.0f})"] = median < LAG_GOAL_MS
    return met


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loops", default="asyncio,uvloop,ioxide", help="comma-separated, of: " + ", ".join(loops.FACTORIES))
    parser.add_argument("--rows", default=",".join(ROWS), help="comma-separated, of: " + ", ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--children", type=int, default=200, help="started at once")
    parser.add_argument("--json", metavar="FILE", help="write all samples there")
    parser.add_argument("--check", action="store_true", help="fail if ioxide misses a goal")
    parser.add_argument("--subject", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    options = arguments()
    rows = options.rows.split(",")
    if options.subject:
        subject(options.subject, rows[0], options.children)
        return 0
    names = loops.choose(options.loops)
    versions = {name: loops.version(name) for name in names}
    report.heading(f"{options.children} child processes at once", versions)
    samples, failures = collect([*names, LIMIT], rows, options)
    missed = list(failures)
    for row, by_figure in samples.items():
        lines = []
        for name in [*names, LIMIT]:
            values = [by_figure[figure].get(name, {}).values() for figure in by_figure]
            lines.append([name, *(f"{statistics.median(each):.1f}" if each else "failed" for each in values)])
        print(f"## {row}\n\n{report.table(['', *by_figure], lines)}\n")
        for text, met in goals(by_figure).items():
            print(f"{loops.SUBJECT}: {text} {'met' if met else 'MISSED'}")
            missed += [] if met else [f"{row}: {text}"]
        print()
    for where, reason in failures.items():
        print(f"failed: {where}: {reason}")
    report.write_json(
        options.json,
        {
            "claim": "child processes",
            "loops": versions,
            "children": options.children,
            "samples": samples,
            "failures": failures,
        },
    )
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
