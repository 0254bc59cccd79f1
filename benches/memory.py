"""Claim: ioxide holds tasks and connections in at most asyncio's memory, grows by nothing, and sleeps when idle.

Measures, loop by loop: resident bytes per sleeping task and per idle connection; growth over cycles of tasks and
over connections opened and closed; wake-ups and threads of an idle loop. Method and caveats: README.md.

Invariants:
 1. Each measurement has a new process, and warms up on the work it measures before the first census.
 2. Only the measured process is counted: the connections' other ends live in this script.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import loops
import machine
import report
from memory_subject import CYCLES
from processes import Failed, Process

MESSAGE = b"m" * 1024
AT_ONCE = 100
IDLE_SECONDS = 2.0
# Growth below this over a whole run is the allocator's arenas settling, not a leak: a leak of 6 bytes a cycle shows.
GROWTH_BOUND_KIB = 512
OBJECTS_BOUND = 50
# Objects that are kept to be used again, thousands of each kind at most, shared among the tasks that were cancelled.
KEPT_BOUND = 1.25
KINDS = ["protocol", "streams"]
Figures = dict[str, float]
# {figure: {loop: {round: value}}}
Samples = dict[str, dict[str, dict[int, float]]]


def census(subject: Process) -> dict[str, int]:
    held: dict[str, int] = json.loads(subject.ask("census"))
    return held


def connect(port: int, count: int) -> list[socket.socket]:
    return [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(count)]


def converse(connections: list[socket.socket]) -> None:
    for connection in connections:
        connection.sendall(MESSAGE)
    for connection in connections:
        left = len(MESSAGE)
        while left:
            data = connection.recv(left)
            if not data:
                raise Failed("the server closed a connection")
            left -= len(data)


def wait_for_descriptors(subject: Process, reached: Callable[[int], bool]) -> None:
    """Until the server has accepted or closed what the client did; a server that never does shows in the figures."""
    deadline = time.monotonic() + 5
    while not reached(machine.open_descriptors(subject.id)) and time.monotonic() < deadline:
        time.sleep(0.01)


def open_and_close(subject: Process, port: int, count: int) -> None:
    before = machine.open_descriptors(subject.id)
    for _ in range(count // AT_ONCE):
        connections = connect(port, AT_ONCE)
        converse(connections)
        for connection in connections:
            connection.close()
    wait_for_descriptors(subject, lambda descriptors: descriptors <= before)


def serve(subject: Process, kind: str) -> int:
    port = int(subject.ask(f"serve {kind}").split()[1])
    time.sleep(0.3)
    return port


def sleeping_tasks(subject: Process, options: argparse.Namespace) -> Figures:
    count = options.tasks
    for command in ("sleep 1000", "cancel"):
        subject.ask(command)
    before = census(subject)
    subject.ask(f"sleep {count}", patience=120)
    full = machine.resident_bytes(subject.id)
    subject.ask("cancel", patience=120)
    after = census(subject)
    return {
        f"bytes per sleeping task ({count:,})": (full - before["resident"]) / count,
        "bytes kept per task after cancelling them": (after["resident"] - before["resident"]) / count,
    }


def idle_connections(kind: str) -> Callable[[Process, argparse.Namespace], Figures]:
    def measure(subject: Process, options: argparse.Namespace) -> Figures:
        count = options.connections
        port = serve(subject, kind)
        open_and_close(subject, port, AT_ONCE)
        before = census(subject)
        # Not the census's number: that one includes the descriptor with which the process reads its own directory.
        expected = machine.open_descriptors(subject.id) + count
        connections = connect(port, count)
        try:
            wait_for_descriptors(subject, lambda descriptors: descriptors >= expected)
            time.sleep(0.2)
            if machine.open_descriptors(subject.id) < expected:
                raise Failed(f"the server did not accept {count} connections")
            silent = machine.resident_bytes(subject.id)
            for start in range(0, count, AT_ONCE):
                converse(connections[start : start + AT_ONCE])
            used = machine.resident_bytes(subject.id)
        finally:
            for connection in connections:
                connection.close()
        return {
            f"bytes per idle connection, {kind} ({count:,})": (silent - before["resident"]) / count,
            f"bytes per idle connection, {kind}, after 1 KiB each way": (used - before["resident"]) / count,
        }

    return measure


def growth(what: str, subject: Process, work: Callable[[int], None], count: int) -> Figures:
    """Half the work warms up; the census after it is the base for the whole of the work."""
    work(count // 2)
    before = census(subject)
    work(count)
    after = census(subject)
    subject.ask("collector off")
    work(count // 10)
    uncollected = census(subject)["unreachable"]
    subject.ask("collector on")
    return {
        f"{what}: KiB grown": (after["resident"] - before["resident"]) / 1024,
        f"{what}: objects grown": after["objects"] - before["objects"],
        f"{what}: descriptors grown": after["descriptors"] - before["descriptors"],
        f"{what}: objects in cycles left by {count // 10:,}": uncollected,
    }


def task_growth(kind: str) -> Callable[[Process, argparse.Namespace], Figures]:
    def measure(subject: Process, options: argparse.Namespace) -> Figures:
        def work(count: int) -> None:
            subject.ask(f"cycle {kind} {count}", patience=120)

        return growth(f"{options.cycles:,} {kind}", subject, work, options.cycles)

    return measure


def connection_growth(kind: str) -> Callable[[Process, argparse.Namespace], Figures]:
    def measure(subject: Process, options: argparse.Namespace) -> Figures:
        port = serve(subject, kind)

        def work(count: int) -> None:
            open_and_close(subject, port, count)

        return growth(f"{options.opened:,} {kind} connections", subject, work, options.opened)

    return measure


def idle(subject: Process, options: argparse.Namespace) -> Figures:
    """A listening server, an idle connection, a thousand timers an hour away: nothing of this may wake the loop."""
    port = serve(subject, "protocol")
    subject.ask("sleep 1000")
    with socket.create_connection(("127.0.0.1", port)) as connection:
        converse([connection])
        time.sleep(0.5)
        wake_ups = machine.voluntary_switches(subject.id)
        time.sleep(IDLE_SECONDS)
        wake_ups = machine.voluntary_switches(subject.id) - wake_ups
        return {f"wake-ups in {IDLE_SECONDS:.0f} idle seconds": wake_ups, "threads": machine.threads(subject.id)}


MEASUREMENTS: dict[str, Callable[[Process, argparse.Namespace], Figures]] = {
    "sleeping tasks": sleeping_tasks,
    **{f"idle connections {kind}": idle_connections(kind) for kind in KINDS},
    **{f"growth {kind}": task_growth(kind) for kind in CYCLES},
    **{f"growth connections {kind}": connection_growth(kind) for kind in KINDS},
    "idle": idle,
}


def collect(names: list[str], chosen: list[str], options: argparse.Namespace) -> tuple[Samples, dict[str, str]]:
    samples: Samples = {}
    failures: dict[str, str] = {}
    script = str(machine.HERE / "memory_subject.py")
    for round_number in range(options.rounds):
        for measurement in chosen:
            for name in names:
                try:
                    with Process(name, machine.MEASURED_CORE, [sys.executable, script, name]) as subject:
                        figures = MEASUREMENTS[measurement](subject, options)
                except (Failed, OSError) as failure:
                    failures[f"{measurement} on {name}"] = str(failure)
                    continue
                for figure, value in figures.items():
                    samples.setdefault(figure, {}).setdefault(name, {})[round_number] = value
        print(f"round {round_number + 1} of {options.rounds} done", file=sys.stderr)
    return samples, failures


def medians(by_loop: dict[str, dict[int, float]]) -> dict[str, float]:
    return {name: statistics.median(values.values()) for name, values in by_loop.items()}


def goal(figure: str, median: dict[str, float]) -> tuple[str, bool | None]:
    """(what ioxide promises, whether it keeps it; None if it cannot be told because one of the two is missing)."""
    own, reference = median.get(loops.SUBJECT), median.get("asyncio")
    if figure.endswith("KiB grown"):
        # What asyncio's own wait_for leaves in cycles moves between arenas on every loop.
        bound = max(GROWTH_BOUND_KIB, reference or 0)
        return f"< {GROWTH_BOUND_KIB} or ≤ asyncio", None if own is None else own <= bound
    if figure.startswith("bytes kept") and own is not None and reference is not None:
        return f"≤ {KEPT_BOUND} asyncio", own <= KEPT_BOUND * reference
    if figure.endswith("objects grown"):
        return f"< {OBJECTS_BOUND}", None if own is None else own < OBJECTS_BOUND
    if figure.endswith("descriptors grown") or figure.startswith("wake-ups"):
        return "0", None if own is None else own <= 0
    return "≤ asyncio", None if own is None or reference is None else own <= reference


def rows(samples: Samples, names: list[str]) -> Iterator[list[str]]:
    for figure, by_loop in samples.items():
        median = medians(by_loop)
        line = [figure, *[f"{median[name]:,.0f}" if name in median else "failed" for name in names]]
        if loops.SUBJECT in names:
            text, kept = goal(figure, median)
            line.append(text + {None: "", True: " met", False: " MISSED"}[kept])
        yield line


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loops", default="all", help="comma-separated, of: " + ", ".join(loops.FACTORIES))
    parser.add_argument("--only", default="", help="comma-separated parts of: " + ", ".join(MEASUREMENTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=100_000, help="sleeping tasks")
    parser.add_argument("--connections", type=int, default=5_000, help="idle connections")
    parser.add_argument("--cycles", type=int, default=100_000, help="tasks or timers created and finished")
    parser.add_argument("--opened", type=int, default=10_000, help="connections opened and closed")
    parser.add_argument("--json", metavar="FILE", help="write all samples there")
    parser.add_argument("--check", action="store_true", help="fail if ioxide misses a goal")
    return parser.parse_args()


def allow_descriptors(count: int) -> None:
    """For this script and, inherited, for the processes it measures."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise SystemExit(f"{count} open files are needed, the hard limit is {hard}: choose fewer --connections")
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def main() -> int:
    options = arguments()
    names = loops.choose(options.loops)
    if options.check and loops.SUBJECT not in names:
        raise SystemExit(f"--check is about {loops.SUBJECT}: it must be installed and chosen")
    chosen = [name for name in MEASUREMENTS if any(part.strip() in name for part in options.only.split(","))]
    if not chosen:
        raise SystemExit(f"no measurement's name contains any of: {options.only}")
    allow_descriptors(options.connections + 500)
    os.sched_setaffinity(0, {machine.CLIENT_CORE})
    versions = {name: loops.version(name) for name in names}
    report.heading("Memory, growth, idle loops", versions)
    samples, failures = collect(names, chosen, options)
    print("Medians of the rounds\n")
    header = ["", *names, *(["goal"] if loops.SUBJECT in names else [])]
    print(report.table(header, list(rows(samples, names))))
    for where, reason in failures.items():
        print(f"failed: {where}: {reason}")
    report.write_json(options.json, {
        "claim": "memory", "loops": versions, "rounds": options.rounds, "figures": samples, "failures": failures,
    })
    if not options.check:
        return 0
    missed = [figure for figure, by_loop in samples.items() if goal(figure, medians(by_loop))[1] is not True]
    missed += [where for where in failures if where.endswith(f" on {loops.SUBJECT}")]
    if missed:
        print("goal missed: " + "; ".join(missed), file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
