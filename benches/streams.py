"""Claim: echo servers on ioxide's streams cost at most 1.3 times a C epoll loop, and at most half of uvloop's.

Measures what echo.py measures, by its means and with its method, for servers that read(), readline() and readexactly() in
turn with write() and drain(), 100 TCP connections of 1 KiB; ioxide runs as with ioxide.run(): its native names stand in
asyncio. The goals are for a release build.

Invariants:
 1. The limit, uvloop and asyncio run in every round; a ratio compares two runs of the same round.
"""

from __future__ import annotations

import argparse
import os
import sys

import echo
import loops
import machine
import report
from echo_server import EXACTLY, STREAM_KINDS

TIMES_C = 1.3
TIMES_UVLOOP = 0.5


def ratio(runs: echo.Runs, kind: str, name: str) -> float | None:
    def costs(of: str) -> dict[int, float]:
        return {number: run["cpu_ns_per_request"] for number, run in runs[kind].get(of, {}).items()}

    return report.paired_ratio(costs(loops.SUBJECT), costs(name))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loops", default="asyncio,uvloop,ioxide", help="comma-separated, of: " + ", ".join(loops.FACTORIES))
    parser.add_argument("--kinds", default="", help="comma-separated ends of: " + ", ".join(STREAM_KINDS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each load lasts")
    parser.add_argument("--json", metavar="FILE", help="write all samples there")
    parser.add_argument("--check", action="store_true", help="fail if ioxide misses a goal")
    options = parser.parse_args()
    options.connections, options.size, options.family, options.requests = 100, EXACTLY, "tcp", None
    names = loops.choose(options.loops)
    kinds = [kind for kind in STREAM_KINDS if any(kind.endswith(part.strip()) for part in options.kinds.split(","))]
    os.sched_setaffinity(0, {machine.CLIENT_CORE})
    report.heading("TCP echo by streams, 100 connections, 1024 bytes", {name: loops.version(name) for name in names})
    runs, failures = echo.collect(names, kinds, options)
    echo.show(runs, dict.fromkeys(kinds, TIMES_C))
    missed = list(failures)
    for kind in kinds:
        for name, goal in ((echo.LIMIT, TIMES_C), ("uvloop", TIMES_UVLOOP), ("asyncio", 1.0)):
            found = ratio(runs, kind, name)
            if found is None:
                continue
            print(f"{kind}: {found:.2f} × {name}, goal {goal}")
            missed += [f"{kind} beside {name}"] * (found > goal)
    for where, reason in failures.items():
        print(f"failed: {where}: {reason}")
    report.write_json(options.json, {"rounds": options.rounds, "runs": runs, "failures": failures})
    if options.check and missed:
        print(f"goal missed: {', '.join(missed)}", file=sys.stderr)
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
