"""Nothing is left of what is finished: no memory, no descriptor, no cycle that only the collector would find.

Each kind of thing is made and finished many times by programs/churn.py, with the collector switched off, in a process of
its own. asyncio leaves nothing either (its transports do before Python 3.13), so the same bounds hold
for both loops.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parent / "programs" / "churn.py"
WAYS = {"asyncio": [], "ioxide": ["-m", "ioxide", "run"]}
LOOPS = {"asyncio": "asyncio.unix_events", "ioxide": "ioxide"}
PATIENCE_SECONDS = 120

# How many of each; connections cost two sockets and two handshakes each.
COUNTS = {
    "tasks": 100_000,
    "groups": 100_000,
    "failures": 100_000,
    "cancellations": 100_000,
    "timers": 100_000,
    "futures": 100_000,
    "timeouts": 100_000,
    "protocols": 10_000,
    "streams": 10_000,
    "sockets": 10_000,
    "descriptors": 10_000,
    "threads": 10_000,
    "loops": 500,
}
# A leak of one small object in each of 100,000 would be more.
MEMORY_BOUND = 4 << 20
OBJECTS_BOUND = 50


def left_by(loop: str, kind: str, count: int) -> dict[str, Any]:
    command = [sys.executable, *WAYS[loop], str(PROGRAM), kind, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    left: dict[str, Any] = json.loads(done.stdout)
    assert left.pop("loop") == LOOPS[loop]
    return left


@pytest.mark.parametrize("kind", COUNTS)
@pytest.mark.parametrize("loop", LOOPS)
def test_nothing_is_left(loop: str, kind: str) -> None:
    if loop == "asyncio" and kind in ("protocols", "streams") and sys.version_info < (3, 13):
        pytest.skip("asyncio's own transports leave cycles for the collector before Python 3.13")
    left = left_by(loop, kind, COUNTS[kind])
    assert (left["descriptors"], left["garbage"]) == (0, {})
    assert left["objects"] < OBJECTS_BOUND
    assert left["memory"] < MEMORY_BOUND


@pytest.mark.parametrize("loop", LOOPS)
def test_what_is_left_would_be_seen(loop: str) -> None:
    """The measurement finds a descriptor, a cycle and the memory of things that are kept."""
    left = left_by(loop, "careless", 10_000)
    assert left["descriptors"] == 1
    assert left["garbage"]["Future"] == 10_000
    assert left["objects"] >= 10_000
    assert left["memory"] > 1 << 20
