"""Claim: scheduling (tasks, futures, callbacks, timers, locks, queues) costs a fraction of what it costs on other loops.

The rows are task_rows.py's, in batches of so many tasks at once. ioxide stands here twice: as `ioxide run` gives it, with
native names in asyncio's place, and as a loop under asyncio's own functions, which compares loops alone.

Invariants:
 1. One process a contender and round does all rows; the contenders take turns row by row, so that only one runs at any time.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import loops
import worker
from suite import Context, Goal, Measure, Workload
from task_rows import ROWS

BATCHES = (100, 1000, 5000)
SHORT = ("sleep(0)", "gather of timed sleeps", "spawn+gather", "contended lock", "task group")
ALONE = ("sleep(0) of one task", "create_task+await", "call_soon chain", "bounded queue", "wait_for")


def label(row: str, batch: int) -> str:
    return f"{row} of {batch}" if ROWS[row].batched else row


CASES = {label(row, batch): (row, batch) for row in ROWS for batch in (BATCHES if ROWS[row].batched else BATCHES[:1])}


@contextlib.contextmanager
def session(contender: str, context: Context, idle_socket: bool) -> Iterator[Measure]:
    with worker.started(contender, "task_rows") as ask:

        def measure(case: str) -> dict[str, float]:
            row, batch = CASES[case]
            # A whole number of batches.
            operations = max(context.operations(ROWS[row].operations) // batch, 1) * batch
            return ask(row, operations, batch, idle_socket)

        yield measure


def goals() -> tuple[Goal, ...]:
    """Each row's promise is how many times cheaper than uvloop; a Goal is how much dearer than it at most."""
    found = []
    for case, (row, batch) in CASES.items():
        largest = ROWS[row].largest_goal if batch == BATCHES[-1] else None
        found.append(Goal(loops.BASELINE, round(1 / (largest or ROWS[row].goal), 3), (case,)))
        if (promised := ROWS[row].loop_goal) is not None:
            found.append(Goal(loops.BASELINE, round(1 / promised, 3), (case,), subject=loops.LOOP_ALONE))
    return tuple(found)


CONTENDERS = (*loops.COMMON[:-2], loops.POLLING, loops.LOOP_ALONE, loops.SUBJECT)

WORKLOADS = [
    Workload(
        "tasks",
        "Scheduling costs a fraction of what it costs on other loops.",
        tuple(CASES),
        functools.partial(session, idle_socket=False),
        CONTENDERS,
        goals=goals(),
        short=tuple(label(row, 1000) for row in SHORT) + ALONE,
    ),
    Workload(
        "tasks-with-socket",
        "The same with a registered socket on which nothing arrives, so that the kernel is asked in between.",
        tuple(CASES),
        functools.partial(session, idle_socket=True),
        CONTENDERS,
        goals=goals(),
        short=None,
    ),
]
