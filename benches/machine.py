"""The machine a benchmark runs on: its cores, what it is, what a process costs on it, where the compiler is.

Rendering figures belongs to report.py.

Invariants:
 1. CPU time of a process covers all its threads, living and ended, in user and kernel mode.
 2. The measured process and its client never share a core, unless there is only one (report.heading says so then).
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import ssl
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Read once, on import: the scripts pin themselves to CLIENT_CORE afterwards.
CORES = sorted(os.sched_getaffinity(0))
MEASURED_CORE = CORES[-1]
CLIENT_CORE = CORES[0]


def pinned(core: int, command: list[str]) -> list[str]:
    """The command, started on one core; threads it starts inherit that core."""
    program = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); os.execvp(sys.argv[2], sys.argv[2:])"
    return [sys.executable, "-S", "-c", program, str(core), *command]


def cpu_nanoseconds(process_id: int) -> int:
    """CPU time of another process from its POSIX CPU clock: /proc/<pid>/stat counts only in steps of 10 ms."""
    # The kernel's encoding of clock_getcpuclockid(): the inverted id, and 2 for "scheduler time".
    return time.clock_gettime_ns((~process_id << 3) | 2)


def threads(process_id: int | str) -> int:
    return len(os.listdir(f"/proc/{process_id}/task"))


def voluntary_switches(process_id: int | str) -> int:
    """How often the threads of a process went to sleep by themselves: each is one wake-up later."""
    total = 0
    for thread in os.listdir(f"/proc/{process_id}/task"):
        status = Path(f"/proc/{process_id}/task/{thread}/status").read_text()
        total += int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])
    return total


def resident_bytes(process_id: int | str = "self") -> int:
    """Resident memory. smaps_rollup is exact; statm and VmRSS may lag behind by dozens of pages per core."""
    for line in Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("smaps_rollup has no Rss line")


def peak_kib(process_id: int | str = "self") -> int:
    """The most resident memory that a process ever had."""
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(status.split("\nVmHWM:")[1].split()[0])


def open_descriptors(process_id: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{process_id}/fd"))


def compile_c(source: str, directory: str, *libraries: str) -> str:
    """Compiles benches/c/<source>.c into `directory`, with libraries such as "-lssl", and returns the program's path.

    FileNotFoundError: there is no C compiler; CalledProcessError: a header or a library is missing, its `stderr` says which.
    """
    compiler = shutil.which("cc") or "cc"
    program = os.path.join(directory, source)
    command = [compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, str(HERE / "c" / f"{source}.c"), *libraries]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return program


def describe() -> dict[str, object]:
    """What a reader needs to judge the figures, recorded with them."""
    return {
        "processor": _processor(),
        "cores": len(CORES),
        "kernel": platform.release(),
        "python": sys.version.split("\n")[0].split(" (")[0],
        "openssl": ssl.OPENSSL_VERSION,
        "commit": _commit(),
        "load_average": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def lines(facts: dict[str, object]) -> list[str]:
    """`describe()` for a reader."""
    return [
        f"{facts['processor']}, {facts['cores']} cores, Linux {facts['kernel']}",
        f"Python {facts['python']}; {facts['openssl']}; commit {facts['commit']}",
        f"{facts['date']}; load at the start {facts['load_average']:.1f}",
    ]


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _commit() -> str:
    """Of this tree; a copy of it without git's folder is told by the environment."""
    if told := os.environ.get("IOXIDE_COMMIT"):
        return told
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
