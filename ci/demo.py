"""`make demo`: runs the examples on asyncio and on ioxide, shows what they print and how long each took.

Every run is a process of its own: `python example.py` beside `ioxide run example.py`, with the interpreter that runs
this file. It fails if an example fails or prints something else on ioxide than on asyncio.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PROGRAMS = ["hello_async.py", "gather_tasks.py", "blocking_call_in_thread.py", "fetch_many.py"]
WAYS = {"asyncio": [sys.executable], "ioxide": [sys.executable, "-m", "ioxide", "run"]}


def run(way: str, program: str) -> tuple[str, float]:
    """What the program printed, and its seconds."""
    begun = time.perf_counter()
    done = subprocess.run([*WAYS[way], EXAMPLES / program], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begun
    if done.returncode != 0:
        sys.exit(f"{program} failed on {way} with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout, seconds


def without_times(output: str) -> str:
    return re.sub(r"\d+\.\d+", "#", output)


def main() -> None:
    seconds: dict[str, dict[str, float]] = {}
    for program in PROGRAMS:
        print(f"\n$ ioxide run examples/{program}", flush=True)
        output, on_ioxide = run("ioxide", program)
        print(output, end="", flush=True)
        expected, on_asyncio = run("asyncio", program)
        if without_times(output) != without_times(expected):
            sys.exit(f"{program} prints something else on asyncio:\n{expected}")
        seconds[program] = {"asyncio": on_asyncio, "ioxide": on_ioxide}
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"\nThe same output on both. Seconds of the whole process, Python {version}:\n")
    print(f"{'':28}{'asyncio':>9}{'ioxide':>9}")
    for program, row in seconds.items():
        print(f"{program:28}{row['asyncio']:9.2f}{row['ioxide']:9.2f}")
    print("\nThe first three mostly sleep, on any loop; `make bench` measures what the loops themselves cost.")


if __name__ == "__main__":
    main()
