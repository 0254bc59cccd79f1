"""All benchmarks by one command: every workload of registry.py, or those of `--only`, measured and written down.

usage: bench.py [--only tasks,tcp] [--short] [--rounds N] [--contenders "ioxide,uvloop"] [--json FILE] [--page FOLDER] [--check]

Results are written after each round of each workload; the same command with the same --json goes on where it was interrupted.

Invariants:
 1. One contender, one process; in each round the contenders take turns case by case, in an order that shifts with the round.
 2. A row that failed stands in the results with its reason, never dropped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import loops
import machine
import pages
import report
from processes import Failed
from registry import WORKLOADS
from suite import Context, Workload

# (rounds, seconds of a load, share of the operations)
FULL, SHORT, TINY = (7, 1.0, 1.0), (3, 0.35, 0.5), (1, 0.02, 0.01)
MISTAKES = (Failed, OSError, subprocess.CalledProcessError, json.JSONDecodeError, KeyError)


def reason(mistake: BaseException) -> str:
    if isinstance(mistake, subprocess.CalledProcessError):
        return f"{os.path.basename(mistake.cmd[0])}: {(mistake.stderr or '').strip().splitlines()[:1]}"
    return f"{type(mistake).__name__}: {mistake}" if not isinstance(mistake, Failed) else str(mistake)


def one_round(
    workload: Workload, cases: list[str], order: list[str], number: int, context: Context, result: dict[str, Any]
) -> None:
    with contextlib.ExitStack() as stack:
        sessions = {}
        for contender in order:
            try:
                sessions[contender] = stack.enter_context(workload.session(contender, context))
            except MISTAKES as mistake:
                result["failures"][contender] = reason(mistake)
        for case in cases:
            for contender in sessions:
                try:
                    figures = sessions[contender](case)
                except MISTAKES as mistake:
                    result["failures"][f"{case} on {contender}"] = reason(mistake)
                else:
                    result["samples"].setdefault(case, {}).setdefault(contender, {})[str(number)] = figures


def empty(workload: Workload, contenders: list[str], cases: list[str]) -> dict[str, Any]:
    return {
        "claim": workload.claim,
        "figure": workload.figure,
        "unit": workload.unit,
        "baseline": workload.baseline,
        "growth": workload.growth,
        "details": list(workload.details),
        "contenders": contenders,
        "cases": cases,
        "plotted": list(workload.plotted or workload.short or cases),
        "goals": [
            {"case": case, "subject": goal.subject, "against": goal.against, "at_most": goal.at_most}
            for goal in workload.goals
            for case in cases
            if goal.holds_for(case)
        ],
        "rounds": 0,
        "samples": {},
        "failures": {},
    }


def measure(
    workload: Workload, contenders: list[str], options: argparse.Namespace, context: Context, results: dict[str, Any]
) -> None:
    cases = list(workload.chosen_cases(options.short))
    if options.cases:
        cases = [case for case in cases if any(part in case for part in options.cases.split(","))]
    if not cases:
        return
    result = results["workloads"].setdefault(workload.name, empty(workload, contenders, cases))
    begun = time.monotonic()
    for number in range(result["rounds"], min(options.rounds, workload.most_rounds)):
        shift = number % len(contenders)
        one_round(workload, cases, contenders[shift:] + contenders[:shift], number, context, result)
        result["rounds"] = number + 1
        write(options.json, results)
    print(f"{workload.name}: {result['rounds']} rounds, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)


def write(path: str | None, results: dict[str, Any]) -> None:
    if path is None:
        return
    # Never half a file: a run that is interrupted goes on from it.
    temporary = f"{path}.partial"
    Path(temporary).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def begin(options: argparse.Namespace, names: list[str], absent: dict[str, str]) -> dict[str, Any]:
    """New results, or those of the file, if it comes from the same program on the same Python."""
    facts = machine.describe()
    if options.json and os.path.exists(options.json):
        results: dict[str, Any] = json.loads(Path(options.json).read_text())
        is_same = all(results["machine"][key] == facts[key] for key in ("commit", "python"))
        if is_same and results["command"] == options.command and not results["is_finished"]:
            print(f"going on with {options.json}", file=sys.stderr)
            return results
    return {
        "machine": facts,
        "command": options.command,
        "versions": {name: loops.version(name) for name in names},
        "absent": absent,
        "is_finished": False,
        "workloads": {},
    }


def arguments() -> argparse.Namespace:
    names = ", ".join(workload.name for workload in WORKLOADS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=f"comma-separated, of: {names}")
    parser.add_argument("--cases", default="", help="comma-separated parts of the names of cases")
    parser.add_argument("--contenders", default="all", help="comma-separated, of: " + ", ".join(loops.CONTENDERS))
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--short", action="store_true", help="what tells most, in some minutes")
    length.add_argument("--tiny", action="store_true", help="each once and hardly anything of it: whether everything works")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="how long each load lasts")
    parser.add_argument("--json", metavar="FILE", help="write all samples there after each round; go on from there")
    parser.add_argument("--page", metavar="FOLDER", help="write benchmarks.md and its plots there")
    parser.add_argument("--check", action="store_true", help="fail if ioxide misses a goal or has a row that failed")
    parser.add_argument("--list", action="store_true", help="the workloads and their claims")
    options = parser.parse_args()
    rounds, seconds, options.scale = TINY if options.tiny else SHORT if options.short else FULL
    options.rounds, options.seconds = options.rounds or rounds, options.seconds or seconds
    options.command = " ".join(["benches/bench.py", *without_places(sys.argv[1:])])
    return options


def without_places(words: list[str]) -> list[str]:
    """The command without where its results go, which says nothing about them."""
    left, skip = [], False
    for word in words:
        if not skip and word not in ("--json", "--page"):
            left.append(word)
        skip = word in ("--json", "--page")
    return left


def choose_workloads(only: str) -> list[Workload]:
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    known = {workload.name for workload in WORKLOADS}
    if unknown := set(wanted) - known:
        raise SystemExit(f"no such workload: {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    return [workload for workload in WORKLOADS if not wanted or workload.name in wanted]


def main() -> int:
    options = arguments()
    workloads = choose_workloads(options.only)
    if options.list:
        for workload in workloads:
            print(f"{workload.name}: {workload.claim} ({len(workload.cases)} cases)")
        return 0
    everybody = [name for name in loops.CONTENDERS if any(name in workload.contenders for workload in workloads)]
    wanted = everybody if options.contenders == "all" else [name.strip() for name in options.contenders.split(",")]
    names, absent = loops.choose(wanted)
    for name, reason in absent.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    os.sched_setaffinity(0, {machine.CLIENT_CORE})
    results = begin(options, names, absent)
    report.heading("Benchmarks of ioxide", results["versions"])
    with Context.open(options.seconds, options.scale) as context:
        for workload in workloads:
            missing = [package for package in workload.packages if not machine.is_installed(package)]
            if missing:
                results["absent"][workload.name] = f"{', '.join(missing)} not installed"
                print(f"left out: {workload.name}: {results['absent'][workload.name]}", file=sys.stderr)
                continue
            taking_part = [name for name in workload.contenders if name in names]
            if taking_part or not workload.contenders:
                measure(workload, [*workload.limits, *taking_part], options, context, results)
    results["is_finished"] = True
    write(options.json, results)
    print(pages.tables(results))
    if options.page:
        pages.write(results, Path(options.page))
    missed = report.missed(results)
    for miss in missed:
        print(f"goal missed: {miss}", file=sys.stderr)
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
