"""Claim: `ioxide run hello.py` starts nearly as fast as `python hello.py`.

The program imports asyncio, sleeps for nothing and prints a line; time and CPU of the whole process, from outside. For other
loops it is the same program, run on a loop that it makes.

Invariants:
 1. What the files' modules compile to is cached before the first process that counts.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time

import loops
import machine
from processes import Failed
from suite import Context, Figures, Workload, each

CASE = "hello.py"
TIMES = 10
HELLO = """\
import asyncio

async def main():
    await asyncio.sleep(0)
    print("hello")

asyncio.run(main())
"""


def command_of(contender: str, context: Context) -> list[str]:
    path = os.path.join(context.folder, "hello.py")
    with open(path, "w") as file:
        file.write(HELLO)
    if contender == "asyncio":
        return [sys.executable, path]
    if contender == loops.SUBJECT:
        return [sys.executable, "-m", "ioxide", "run", path]
    if contender == loops.LOOP_ALONE:
        return [sys.executable, "-m", "ioxide", "run", "--no-accelerate", path]
    program = HELLO.replace("import asyncio", f"import asyncio\nimport {loops.CONTENDERS[contender].module} as loops")
    runner = "with asyncio.Runner(loop_factory=loops.new_event_loop) as runner:\n    runner.run(main())"
    return [sys.executable, "-c", program.replace("asyncio.run(main())", runner)]


def measure(contender: str, context: Context, case: str) -> Figures:
    del case
    command = machine.pinned(machine.MEASURED_CORE, command_of(contender, context))
    subprocess.run(command, capture_output=True)
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    times = context.operations(TIMES)
    for _ in range(times):
        done = subprocess.run(command, capture_output=True, text=True, env=loops.environment(contender))
        if done.stdout != "hello\n":
            raise Failed(f"hello.py: {done.stderr.strip().splitlines()[-1:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_ms": (time.perf_counter() - wall) * 1e3 / times, "cpu_ms": cpu * 1e3 / times}


WORKLOADS = [
    Workload(
        "startup",
        "`ioxide run hello.py` starts nearly as fast as `python hello.py`.",
        (CASE,),
        each(measure),
        figure="cpu_ms",
        unit="CPU milliseconds of the whole process, beginning to end",
        details=("wall_ms",),
        baseline="asyncio",
    ),
]
