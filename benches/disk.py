"""Claim: files cost little more than the synchronous calls, and a fraction of what they cost on other libraries.

The rows, ways and goals of files.py as a workload of the suite; lag and growth stay with files.py.

Invariants:
 1. One process a way and round does all rows; the files have just been written, so they are warm.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
from collections.abc import Iterator

import file_subject
import files
from processes import Failed
from suite import Context, Goal, Measure, Workload

ENTRIES = 20_000  # of the tree that is walked
ROW_OF = {title: row for row, title in files.ROWS.items()}


def folders(context: Context) -> list[str]:
    disk = os.path.join(context.folder, "disk")
    os.mkdir(disk)
    files.make_files(disk, context.operations(ENTRIES, 1000), 0)
    memory = context.stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm"))
    return [disk, memory]


@contextlib.contextmanager
def session(way: str, context: Context) -> Iterator[Measure]:
    where = context.once("folders of files", lambda: folders(context))
    with files.start(way, where, argparse.Namespace(operations=1000)) as worker:

        def measure(case: str) -> dict[str, float]:
            found = json.loads(worker.ask(ROW_OF[case]))
            if not found:
                raise Failed("it has no such operation")
            return {"wall_ns": found["wall"], "cpu_ns": found["cpu"]}

        yield measure


GOALS = tuple(
    Goal(other, round(1 / times, 4) if times > 0 else -times, (files.ROWS[row],), subject=way)
    for row, way, other, times in files.GOALS
    if row in files.ROWS
)
WORKLOADS = [
    Workload(
        "files",
        "Files cost little more than the synchronous calls, and a fraction of what they cost on other libraries.",
        tuple(files.ROWS.values()),
        session,
        (),
        tuple(file_subject.WAYS),
        figure="wall_ns",
        unit="wall nanoseconds per operation",
        details=("cpu_ns",),
        goals=GOALS,
        baseline="synchronous",
        most_rounds=5,
        short=tuple(files.ROWS[row] for row in ("open_read_close", "pread", "lines") if row in files.ROWS),
    ),
]
