"""Claim: an echo server on ioxide costs nearly what a C epoll loop costs, per request, over all its threads.

Measures requests per second, CPU per request, latency and threads of each kind of server in echo_server.py, loop by
loop, beside the limit (c/echo_epoll.c) under the same load (c/echo_client.c). Method and caveats: README.md.

Invariants:
 1. Server and client are pinned to two cores; one server runs at a time, each in a new process.
 2. The limit runs once in every round of every kind; a ratio compares two runs of the same round.
 3. The client checks every byte; a server that answers wrongly or not at all is reported as failed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterable

import loops
import machine
import report
from echo_server import KINDS
from processes import PATIENCE_SECONDS, Failed, Process

LIMIT = "C epoll"
# At most this many times the limit's CPU per request, promised for 100 connections, or 50 peers of datagrams, and 1024 bytes.
GOALS: dict[str, dict[str, float]] = {
    "tcp": {"protocol": 1.15, "buffered protocol": 1.2, "sock_recv/sock_sendall": 1.6},
    "unix": {"protocol": 1.15},
    "udp": {"datagrams": 1.2},
}
Run = dict[str, float]
# {kind: {loop: {round: run}}}
Runs = dict[str, dict[str, dict[int, Run]]]


def run_load(server: Process, client: Process, options: argparse.Namespace) -> Run:
    """The server's CPU clock is read just before the load and just after it: neither start-up nor warm-up is in it."""
    client.hear()
    sleeps, cpu = machine.voluntary_switches(server.id), machine.cpu_nanoseconds(server.id)
    answer = client.ask("go", PATIENCE_SECONDS + (options.seconds or 0))
    cpu, sleeps = machine.cpu_nanoseconds(server.id) - cpu, machine.voluntary_switches(server.id) - sleeps
    load: Run = json.loads(answer)
    return {
        **load,
        "requests_per_second": load["requests"] / load["seconds"],
        "cpu_ns_per_request": cpu / load["requests"],
        "server_busy": cpu / 1e9 / load["seconds"],
        "client_busy": load["client_cpu_seconds"] / load["seconds"],
        "server_sleeps_per_request": sleeps / load["requests"],
        "threads": machine.threads(server.id),
    }


def measure(name: str, kind: str, programs: dict[str, str], directory: str, options: argparse.Namespace) -> Run:
    path = os.path.join(directory, "echo.socket")
    if os.path.exists(path):
        os.unlink(path)
    address = [options.family, *([path] if options.family == "unix" else [])]
    script = str(machine.HERE / "echo_server.py")
    server_command = [programs["echo_epoll"]] if name == LIMIT else [sys.executable, script, name, kind]
    with Process("server", machine.MEASURED_CORE, [*server_command, *address]) as server:
        port = server.hear().split()[1]
        target = address if options.family == "unix" else [options.family, port]
        amount = ["requests", str(options.requests)] if options.requests else ["seconds", str(options.seconds)]
        lines = ["line"] if kind == "streams readline" else []
        client_command = [programs["echo_client"], *target, str(options.connections), str(options.size), *amount, *lines]
        with Process("client", machine.CLIENT_CORE, client_command) as client:
            try:
                return run_load(server, client, options)
            except (Failed, FileNotFoundError, ProcessLookupError) as failure:
                # The client only sees that nothing answers; a server that ends knows why.
                raise Failed(server.why_it_ended() if server.ends_within(1) else str(failure)) from failure


def collect(names: list[str], kinds: list[str], options: argparse.Namespace) -> tuple[Runs, dict[str, str]]:
    contenders = [LIMIT, *names]
    runs: Runs = {kind: {name: {} for name in contenders} for kind in kinds}
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as directory:
        programs = {source: machine.compile_c(source, directory) for source in ("echo_epoll", "echo_client")}
        for round_number in range(options.rounds):
            shift = round_number % len(contenders)
            for kind in kinds:
                for name in contenders[shift:] + contenders[:shift]:
                    try:
                        runs[kind][name][round_number] = measure(name, kind, programs, directory, options)
                    except Failed as failure:
                        failures[f"{kind} on {name}"] = str(failure)
            print(f"round {round_number + 1} of {options.rounds} done", file=sys.stderr)
    return runs, failures


def values(runs: dict[int, Run], key: str) -> list[float]:
    return [run[key] for run in runs.values()]


def ratio_to_limit(runs: Runs, kind: str, name: str) -> float | None:
    def costs(of: str) -> dict[int, float]:
        return {number: run["cpu_ns_per_request"] for number, run in runs[kind][of].items()}

    return report.paired_ratio(costs(name), costs(LIMIT))


def line(runs: Runs, kind: str, name: str, goals: dict[str, float]) -> list[str]:
    own = runs[kind][name]
    if not own:
        return [f"{kind} · {name}", "failed", *[""] * 9]

    def median(key: str) -> float:
        return statistics.median(values(own, key))

    cpu = values(own, "cpu_ns_per_request")
    ratio = ratio_to_limit(runs, kind, name)
    goal = ""
    if name == loops.SUBJECT and kind in goals:
        goal = f"{goals[kind]} " + ("met" if ratio is not None and ratio <= goals[kind] else "MISSED")
    return [
        f"{kind} · {name}",
        f"{median('requests_per_second'):,.0f}",
        f"{min(cpu):.0f} · {statistics.median(cpu):.0f} ±{report.spread(cpu):.0f}%",
        "failed" if ratio is None else f"{ratio:.2f}",
        goal,
        *[f"{median(key):.0f}" for key in ("p50_us", "p99_us", "p999_us")],
        f"{max(values(own, 'threads')):.0f}",
        f"{100 * median('server_busy'):.0f}%",
        f"{100 * median('client_busy'):.0f}%",
    ]


def show(runs: Runs, goals: dict[str, float]) -> None:
    header = [
        "server",
        "requests/s",
        "CPU ns/request",
        "× C",
        "goal",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "threads",
        "busy",
        "client busy",
    ]
    print("Medians of the rounds; CPU: minimum · median ±spread; × C: median of the rounds' ratios\n")
    print(report.table(header, [line(runs, kind, name, goals) for kind in runs for name in runs[kind]]))


def arguments(description: str | None = __doc__) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loops", default="all", help="comma-separated, of: " + ", ".join(loops.FACTORIES))
    parser.add_argument("--kinds", default="", help="comma-separated beginnings of: " + ", ".join(KINDS))
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--size", type=int, default=1024, help="bytes of one message")
    parser.add_argument("--unix", action="store_const", const="unix", default="tcp", dest="family", help="Unix sockets, not TCP")
    parser.add_argument("--rounds", type=int, default=9)
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--seconds", type=float, default=1.0, help="how long each load lasts")
    amount.add_argument("--requests", type=int, help="how many requests each load makes, instead")
    parser.add_argument("--json", metavar="FILE", help="write all samples there")
    parser.add_argument("--check", action="store_true", help="fail if ioxide misses a goal (100 connections of 1024 bytes)")
    return parser


def run(options: argparse.Namespace, all_kinds: Iterable[str], promised: tuple[int, int]) -> int:
    """Measures and reports; the goals hold for the promised number of connections and bytes."""
    names = loops.choose(options.loops)
    kinds = [kind for kind in all_kinds if any(kind.startswith(part.strip()) for part in options.kinds.split(","))]
    if not kinds:
        raise SystemExit(f"no kind of server begins with any of: {options.kinds}")
    has_goals = (options.connections, options.size) == promised
    goals = GOALS[options.family] if has_goals else {}
    if options.check and not (has_goals and loops.SUBJECT in names):
        raise SystemExit(
            f"--check needs {loops.SUBJECT}, {promised[0]} connections and {promised[1]} bytes: the goals hold for these"
        )
    os.sched_setaffinity(0, {machine.CLIENT_CORE})
    versions = {name: loops.version(name) for name in names}
    title = f"{options.family} echo, {options.connections} connections, {options.size} bytes"
    report.heading(title, versions)
    runs, failures = collect(names, kinds, options)
    show(runs, goals)
    for where, reason in failures.items():
        print(f"failed: {where}: {reason}")
    report.write_json(
        options.json, {"claim": title, "loops": versions, "rounds": options.rounds, "runs": runs, "failures": failures}
    )
    ratios = {kind: ratio_to_limit(runs, kind, loops.SUBJECT) for kind in goals if kind in kinds} if options.check else {}
    behind = [kind for kind, ratio in ratios.items() if ratio is None or ratio > goals[kind]]
    if behind:
        print(f"goal missed: {', '.join(behind)}", file=sys.stderr)
    return 1 if behind else 0


if __name__ == "__main__":
    sys.exit(run(arguments().parse_args(), KINDS, (100, 1024)))
