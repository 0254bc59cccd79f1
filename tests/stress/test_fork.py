"""fork() with a live loop: the child gets a clean error or a clean new loop, and the parent does not notice.

What asyncio does well is the same on both loops. What it does not survive is tested on ioxide alone: in asyncio the
child shares its parent's epoll instance, and takes events and registrations away from it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parent / "programs" / "forking.py"
WAYS = {"asyncio": [], "ioxide": ["-m", "ioxide", "run"]}
LOOPS = {"asyncio": "asyncio.unix_events", "ioxide": "ioxide"}
PATIENCE_SECONDS = 60

FOREIGN = "child: RuntimeError: this event loop belongs to the parent process; create a new one after a fork"
ENDED = "child ended with 0"

SAME_ON_BOTH = {
    "new_loop": ["child: IT WORKS", ENDED, "parent: IT WORKS"],
    "no_running_loop": ["child: RuntimeError: no running event loop", ENDED, "parent: IT WORKS"],
    "process_pool": ["child: IT WORKS", ENDED, "parent: IT WORKS"],
    "between_runs": ["parent: IT WORKS", "child: IT WORKS", ENDED, "parent: IT WORKS"],
}


def run(loop: str, scenario: str) -> tuple[list[str], str]:
    """What parent and child printed, and what they wrote to stderr."""
    command = [sys.executable, "-W", "error::ResourceWarning", *WAYS[loop], str(PROGRAM), scenario]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == LOOPS[loop]
    return lines[1:], done.stderr


@pytest.mark.parametrize("scenario", SAME_ON_BOTH)
@pytest.mark.parametrize("loop", LOOPS)
def test_fork(loop: str, scenario: str) -> None:
    assert run(loop, scenario) == (SAME_ON_BOTH[scenario], "")


def test_using_the_parents_running_loop() -> None:
    closing = "child: RuntimeError: Cannot close a running event loop"
    assert run("ioxide", "parents_loop") == ([FOREIGN, ENDED, closing, ENDED, "parent: IT WORKS"], "")


def test_running_the_parents_idle_loop() -> None:
    assert run("ioxide", "parents_idle_loop") == ([FOREIGN, ENDED, FOREIGN, ENDED, "parent: IT WORKS"], "")


def test_closing_in_the_child_what_the_parent_uses() -> None:
    lines = ["child: IT WORKS", ENDED, "parent: STILL HERE", "parent: IT WORKS"]
    assert run("ioxide", "connections_closed_in_child") == (lines, "")


def test_leaving_the_child_through_the_parents_loop() -> None:
    lines, errors = run("ioxide", "child_leaves_through_the_loop")
    assert lines == ["parent: IT WORKS"]
    assert FOREIGN.removeprefix("child: ") in errors
