"""Runs the interpreter's own Lib/test/test_asyncio on another event loop: `python tests/cpython/run.py --help`.

One process a test module (module.py); this file starts them, goes on after hangs and crashes, and judges the
outcomes by expected.toml. What is swapped is swap.py's business.

R1. The run fails on an unexpected failure, on an unexpected pass, and when any test ran on another loop than asked.
R2. A test whose process died is failed, and the module goes on with the test behind it in a new process.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import expected

HERE = Path(__file__).parent
MODULES = [
    "test_events",
    "test_base_events",
    "test_futures",
    "test_futures2",
    "test_tasks",
    "test_eager_task_factory",
    "test_context",
    "test_runners",
    "test_threads",
    "test_pep492",
    "test_server",
    "test_sock_lowlevel",
    "test_buffered_proto",
    "test_streams",
    "test_unix_events",
    "test_locks",
    "test_queues",
    "test_taskgroups",
    "test_timeouts",
    "test_waitfor",
    "test_staggered",
    "test_transports",
    "test_protocols",
    "test_free_threading",
    "test_graph",
]
# What mode `names` runs unless modules are named: the tests of what ioxide brings in place of asyncio's.
MODULES_OF_NAMES = [
    "test_tasks",
    "test_futures",
    "test_locks",
    "test_queues",
    "test_taskgroups",
    "test_timeouts",
    "test_waitfor",
    "test_streams",
    "test_staggered",
    "test_runners",
    "test_threads",
    "test_pep492",
    "test_graph",
    "test_eager_task_factory",
    "test_free_threading",
]


@dataclass
class Outcome:
    """How one test ended; `kind` is passed, failed, skipped, expected_failure or unexpected_pass."""

    test: str
    kind: str
    summary: str = ""
    detail: str = ""


@dataclass
class ModuleRun:
    """Everything that happened in one test module, over all its processes."""

    module: str
    outcomes: list[Outcome] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    loops_made: int = 0
    seconds: float = 0.0

    def count(self, *kinds: str) -> int:
        return sum(outcome.kind in kinds for outcome in self.outcomes)

    @property
    def bad(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.kind in ("failed", "unexpected_pass")]

    def line(self) -> str:
        return (
            f"{self.module:<25} {self.count('passed'):>5} passed {self.count('failed', 'unexpected_pass'):>5} failed "
            f"{self.count('skipped'):>5} skipped {self.count('expected_failure'):>5} expected failures "
            f"{self.loops_made:>5} loops {self.seconds:>6.1f} s"
        )


@dataclass
class Process:
    """What one process left behind."""

    events: list[dict[str, str | int]]
    status: int
    errors: str
    timed_out: bool

    @property
    def ended(self) -> bool:
        return any(event["event"] == "end" for event in self.events)

    @property
    def last_words(self) -> str:
        return "\n".join(self.errors.splitlines()[-40:])

    def death(self) -> str:
        """Why the process is no more."""
        if self.timed_out:
            return "the module ran longer than its timeout"
        if "Timeout (" in self.errors:
            return "hung: the watchdog ended the process"
        name = signal.Signals(-self.status).name if self.status < 0 else f"exit status {self.status}"
        last = self.errors.strip().splitlines()[-1:]
        return " ".join(["the process died:", name, *last])


def start(arguments: argparse.Namespace, module: str, first: int, seconds: float) -> Process:
    """Run one process over the tests of a module from index `first` on, for so many seconds at most."""
    command = [sys.executable, str(HERE / "module.py"), module, "--loop", arguments.loop, "--mode", arguments.mode]
    command += ["--first", str(first), "--test-timeout", str(arguments.test_timeout)]
    command += [word for pattern in arguments.patterns for word in ("--pattern", pattern)]
    command += ["--list"] if arguments.list else []
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE")}
    with tempfile.TemporaryDirectory(prefix="test_asyncio_", ignore_cleanup_errors=True) as folder:
        events, errors = Path(folder, "events"), Path(folder, "errors")
        events.touch()
        with errors.open("wb") as output:
            child = subprocess.Popen(
                [*command, "--events", str(events)],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                child.wait(seconds)
                timed_out = False
            except subprocess.TimeoutExpired:
                timed_out = True
            finally:
                _end_session(child)
        lines = events.read_text(encoding="utf-8").splitlines()
        return Process([json.loads(line) for line in lines], child.returncode, errors.read_text(errors="replace"), timed_out)


def _end_session(child: subprocess.Popen[bytes]) -> None:
    """End the process and what its tests left running."""
    with contextlib.suppress(ProcessLookupError):  # nothing is left of the session
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def record(run: ModuleRun, process: Process, rows: list[expected.Row]) -> tuple[str, int] | None:
    """Add a process's outcomes to the run; returns the test (name, index) in which it died, if any."""
    running: tuple[str, int] | None = None
    for event in process.events:
        name = str(event.get("test", ""))
        match event["event"]:
            case "start":
                running = (name, int(event["index"]))
            case "stop":
                running = None
                run.outcomes.append(judge(run.module, name, event, rows))
            case "left_out":
                run.outcomes.append(Outcome(name, "skipped", str(event["reason"])))
            case "foreign":
                run.foreign.append(f"{running[0] if running else '(between tests)'}: {event['loop']}")
    run.loops_made += max((int(event.get("loops_made", 0)) for event in process.events), default=0)
    return running


def judge(module: str, test: str, event: dict[str, str | int], rows: list[expected.Row]) -> Outcome:
    """Turn what a test did into an outcome, by the table of expectations."""
    row = expected.find(rows, module, test)
    outcome = str(event["outcome"])
    if row is None or row.outcome == "skip" or outcome == "skipped":
        return Outcome(test, outcome, str(event["summary"]), str(event["detail"]))
    if outcome == "failed":
        return Outcome(test, "expected_failure", row.reason, str(event["detail"]))
    return Outcome(test, "unexpected_pass", f"passes, but expected.toml says: {row.reason}")


def run_module(arguments: argparse.Namespace, module: str) -> ModuleRun:
    """Run one module to its end, over as many processes as it takes (R2)."""
    run, rows = ModuleRun(module), expected.load(arguments.loop, arguments.mode)
    started, first = time.monotonic(), 0
    while True:
        left = arguments.timeout - (time.monotonic() - started)
        process = start(arguments, module, first, max(left, 1.0))
        died_in = record(run, process, rows)
        last = max((int(event["index"]) for event in process.events if event["event"] == "start"), default=-1)
        if process.ended and died_in is None:
            if process.status != 0:
                run.outcomes.append(Outcome("(interpreter exit)", "failed", process.death(), process.last_words))
            break
        death: dict[str, str | int] = {"outcome": "failed", "summary": process.death(), "detail": process.last_words}
        run.outcomes.append(judge(module, died_in[0] if died_in else f"(behind test {last})", death, rows))
        if process.timed_out or last < first:
            summary = "not run: no time was left, or the process died before a test was started"
            run.outcomes.append(Outcome("(rest of the module)", "failed", summary))
            break
        first = last + 1
    # tests behind a crash are listed as left out by each process: one of them is enough
    run.outcomes = list({outcome.test: outcome for outcome in run.outcomes}.values())
    run.seconds = time.monotonic() - started
    return run


def list_tests(arguments: argparse.Namespace, modules: list[str]) -> int:
    """Print every test with what is expected of it."""
    for module in modules:
        process = start(arguments, module, 0, arguments.timeout)
        if process.status != 0:
            print(process.last_words)
            return 1
        for event in process.events:
            if event["event"] == "listed":
                print(f"{module}.{event['test']}: {event['expect']} {event['reason']}".rstrip())
    return 0


def report(arguments: argparse.Namespace, runs: list[ModuleRun]) -> int:
    """Print what went wrong and the totals; returns the exit status (R1)."""
    for run in runs:
        for outcome in run.bad:
            word = "PASSES UNEXPECTEDLY" if outcome.kind == "unexpected_pass" else "FAILED"
            print(f"{word} {run.module}.{outcome.test}: {outcome.summary}")
            if arguments.verbose:
                print(outcome.detail)
    for run in runs:
        for place in run.foreign:
            print(f"RAN ON ANOTHER LOOP {run.module}.{place}")
    totals = Counter(outcome.kind for run in runs for outcome in run.outcomes)
    failed = totals["failed"] + totals["unexpected_pass"]
    foreign = sum(len(run.foreign) for run in runs)
    no_loop = not arguments.patterns and not any(run.loops_made for run in runs)
    if no_loop:
        print("NO LOOP of the class under test was made")
    print(
        f"python {expected.PYTHON}, loop {arguments.loop}, mode {arguments.mode}, "
        f"{totals['expected_failure']} expected failures, {foreign} on another loop"
    )
    print(f"{totals['passed'] + totals['expected_failure']} passed, {failed} failed, {totals['skipped']} skipped")
    if arguments.json:
        write_json(arguments, runs)
    return 1 if failed or foreign or no_loop else 0


def write_json(arguments: argparse.Namespace, runs: list[ModuleRun]) -> None:
    data = {
        "python": sys.version.split()[0],
        "loop": arguments.loop,
        "mode": arguments.mode,
        "modules": {
            run.module: {
                "seconds": round(run.seconds, 1),
                "loops_made": run.loops_made,
                "foreign": run.foreign,
                "tests": {
                    outcome.test: {"outcome": outcome.kind, "summary": outcome.summary, "detail": outcome.detail}
                    for outcome in run.outcomes
                },
            }
            for run in runs
        },
    }
    Path(arguments.json).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the interpreter's own test_asyncio on another event loop.")
    parser.add_argument("--loop", choices=("ioxide", "stdlib", "uvloop"), default="ioxide")
    parser.add_argument(
        "--mode",
        choices=("loop", "names"),
        default="loop",
        help="loop: loop, and the classes of the parameterised tests; names: all of ioxide's names in asyncio",
    )
    parser.add_argument("--modules", default="", help="comma-separated, such as test_tasks,test_futures")
    parser.add_argument("--jobs", type=int, default=1, help="modules that run at the same time")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one module")
    parser.add_argument("--test-timeout", type=float, default=60.0, help="seconds for one test")
    parser.add_argument("-k", dest="patterns", action="append", default=[], help="only tests whose Class.method contains this")
    parser.add_argument("--list", action="store_true", help="list the tests and what is expected of them; run nothing")
    parser.add_argument("--json", default="", help="write every outcome to this file")
    parser.add_argument("-v", "--verbose", action="store_true", help="print whole tracebacks")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    if importlib.util.find_spec("test.test_asyncio") is None:
        print(f"this Python has no test.test_asyncio: {sys.executable}", file=sys.stderr)
        return 2
    asked = [name.strip() for name in arguments.modules.split(",") if name.strip()]
    usual = MODULES_OF_NAMES if arguments.mode == "names" else MODULES
    modules = [name for name in asked or usual if importlib.util.find_spec(f"test.test_asyncio.{name}")]
    if asked and modules != asked:
        print(f"no such module: {', '.join(sorted(set(asked) - set(modules)))}", file=sys.stderr)
        return 2
    if arguments.list:
        return list_tests(arguments, modules)
    runs: list[ModuleRun] = []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for run in pool.map(lambda module: run_module(arguments, module), modules):
            print(run.line(), flush=True)
            runs.append(run)
    return report(arguments, runs)


if __name__ == "__main__":
    sys.exit(main())
