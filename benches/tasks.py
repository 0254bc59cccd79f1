"""Claim: scheduling on ioxide (tasks, futures, callbacks, timers) costs less CPU than on any other loop.

Measures CPU and wall time per operation of each row in task_rows.py, loop by loop. Method and caveats: README.md.

Invariants:
 1. One process holds one loop; all of them are pinned to one core and only one runs at any time.
 2. The loops take turns row by row, in an order that shifts with each round; each round has new processes.
 3. Warm-up runs the same row on the same loop and is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import socket
import statistics
import sys
import time

import loops
import machine
import report
from processes import Failed, Process
from task_rows import ROWS, Row

# {loop: {row: {round: figure}}}
Samples = dict[str, dict[str, dict[int, float]]]


async def measure(row: Row, idle_socket: bool) -> dict[str, float]:
    """Nanoseconds of CPU and of wall time per operation."""
    loop = asyncio.get_running_loop()
    ends = socket.socketpair() if idle_socket else ()
    for end in ends:
        end.setblocking(False)
    if ends:
        loop.add_reader(ends[0].fileno(), lambda: None)  # by number: rloop knows no other way
    try:
        await row.run(max(row.operations // 5, 5_000))
        gc.collect()
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        await row.run(row.operations)
        cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
    finally:
        if ends:
            loop.remove_reader(ends[0].fileno())
        for end in ends:
            end.close()
    return {"cpu": cpu / row.operations, "wall": wall / row.operations}


def work(loop_name: str, idle_socket: bool) -> None:
    """The measured process: a row's name comes in, its figures or its failure go out, one line each."""
    for line in sys.stdin:
        row = ROWS[line.strip()]
        try:
            answer = loops.run(loop_name, lambda: measure(row, idle_socket))
        except Exception as error:  # a loop that lacks a feature is a result to show, and the next row may work
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


def start(loop_name: str, options: argparse.Namespace) -> Process:
    command = [sys.executable, os.path.abspath(__file__), "--work", loop_name]
    if options.idle_socket:
        command.append("--idle-socket")
    environment = dict(os.environ)
    if options.poll_every_turn and loop_name == loops.SUBJECT:
        environment["IOXIDE_POLL_EVERY_TURN"] = "1"
    return Process(loop_name, machine.MEASURED_CORE, command, environment)


def ask(worker: Process, row_name: str) -> dict[str, float]:
    answer: dict[str, float] = json.loads(worker.ask(row_name))
    if "error" in answer:
        raise Failed(str(answer["error"]))
    return answer


def collect(names: list[str], rows: list[str], options: argparse.Namespace) -> tuple[Samples, Samples, dict[str, str]]:
    cpu: Samples = {name: {row: {} for row in rows} for name in names}
    wall: Samples = {name: {row: {} for row in rows} for name in names}
    failures: dict[str, str] = {}
    for round_number in range(options.rounds):
        shift = round_number % len(names)
        order = names[shift:] + names[:shift]
        with contextlib.ExitStack() as stack:
            workers = {name: stack.enter_context(start(name, options)) for name in order}
            for row in rows:
                for name in order:
                    try:
                        answer = ask(workers[name], row)
                    except Failed as failure:
                        failures[f"{row} on {name}"] = str(failure)
                    else:
                        cpu[name][row][round_number] = answer["cpu"]
                        wall[name][row][round_number] = answer["wall"]
        print(f"round {round_number + 1} of {options.rounds} done", file=sys.stderr)
    return cpu, wall, failures


def figure(samples: dict[int, float]) -> str:
    if not samples:
        return "failed"
    values = list(samples.values())
    return f"{min(values):.0f} · {statistics.median(values):.0f} ±{report.spread(values):.0f}%"


def ratio_to_baseline(samples: Samples, name: str, row: str) -> float | None:
    """How many times cheaper than uvloop, round by round."""
    return report.paired_ratio(samples[loops.BASELINE][row], samples[name][row])


def ratio_rows(cpu: Samples, names: list[str], rows: list[str]) -> list[list[str]]:
    lines = []
    for row in rows:
        line = [row]
        for name in names:
            baseline, own = cpu[loops.BASELINE][row], cpu[name][row]
            ratio = ratio_to_baseline(cpu, name, row)
            line.append("failed" if ratio is None else f"{min(baseline.values()) / min(own.values()):.2f} · {ratio:.2f}")
        if loops.SUBJECT in names:
            ratio = ratio_to_baseline(cpu, loops.SUBJECT, row)
            goal = ROWS[row].goal
            line.append(f"{goal:.1f} " + ("met" if ratio is not None and ratio >= goal else "MISSED"))
        lines.append(line)
    return lines


def show(cpu: Samples, wall: Samples, names: list[str], rows: list[str]) -> None:
    print("CPU nanoseconds per operation, all threads: minimum · median ±spread\n")
    print(report.table(["", *names], [[row, *[figure(cpu[name][row]) for name in names]] for row in rows]))
    print("\nWall nanoseconds per operation: minimum · median ±spread (rows marked CPU sleep, so their wall time says nothing)\n")
    untimed = [row for row in rows if not ROWS[row].timed]
    print(report.table(["", *names], [[row, *[figure(wall[name][row]) for name in names]] for row in untimed]))
    if loops.BASELINE in names:
        print(f"\nTimes cheaper in CPU than {loops.BASELINE}: by minima · median of the rounds' ratios (held to the goal)\n")
        goal = ["goal"] if loops.SUBJECT in names else []
        print(report.table(["", *names, *goal], ratio_rows(cpu, names, rows)))


def missed(cpu: Samples, rows: list[str]) -> list[str]:
    ratios = {row: ratio_to_baseline(cpu, loops.SUBJECT, row) for row in rows}
    return [row for row, ratio in ratios.items() if ratio is None or ratio < ROWS[row].goal]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loops", default="all", help="comma-separated, of: " + ", ".join(loops.FACTORIES))
    parser.add_argument("--rows", default="", help="comma-separated parts of rows' names; the rows: " + ", ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--idle-socket", action="store_true", help="with one registered socket on which nothing arrives")
    parser.add_argument("--poll-every-turn", action="store_true", help="ioxide asks the kernel in every turn, as others do")
    parser.add_argument("--json", metavar="FILE", help="write all samples there")
    parser.add_argument("--check", action="store_true", help="fail if ioxide misses a goal")
    parser.add_argument("--work", metavar="LOOP", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.work:
        work(options.work, options.idle_socket)
        return 0
    names = loops.choose(options.loops)
    if options.check and not {loops.BASELINE, loops.SUBJECT} <= set(names):
        raise SystemExit(f"--check compares {loops.SUBJECT} with {loops.BASELINE}: both must be installed and chosen")
    if options.poll_every_turn and loops.SUBJECT not in names:
        raise SystemExit(f"--poll-every-turn changes only {loops.SUBJECT}, which is not among the loops of this run")
    wanted = [part.strip() for part in options.rows.split(",")]
    rows = [row for row in ROWS if any(part in row for part in wanted)]
    if not rows:
        raise SystemExit(f"no row's name contains any of: {options.rows}")
    os.sched_setaffinity(0, {machine.CLIENT_CORE})
    versions = {name: loops.version(name) for name in names}
    chosen = {"idle socket": options.idle_socket, "poll every turn": options.poll_every_turn}
    conditions = [text for text, is_chosen in chosen.items() if is_chosen]
    report.heading(", ".join(["Tasks and timers", *conditions]), versions)
    cpu, wall, failures = collect(names, rows, options)
    show(cpu, wall, names, rows)
    for where, reason in failures.items():
        print(f"failed: {where}: {reason}")
    report.write_json(options.json, {
        "claim": "tasks", "conditions": conditions, "loops": versions, "rounds": options.rounds,
        "cpu_nanoseconds": cpu, "wall_nanoseconds": wall, "failures": failures,
    })
    if options.check and (behind := missed(cpu, rows)):
        print(f"goal missed: {', '.join(behind)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
