"""The names that `ioxide._ioxide` brings in place of asyncio's: the one table of them.

What it is: asyncio's submodule -> the names it defines that are native. A new native name is one more word here, its
class or function in `ioxide._ioxide`, and its stub; `import ioxide`, `ioxide.install` and the conformance harness read
the table. What it leaves to others: putting the names into asyncio is `ioxide.install`.

Invariants
N1. Only names that a program can gain from. Handle, TimerHandle and Server are absent on purpose: a loop makes its own,
    nobody else does, and a foreign loop must go on making asyncio's.
N2. A name that the running asyncio does not have (Queue's QueueShutDown before 3.13) is offered by `ioxide` only.
N3. A function that asyncio has in C and that reads what ioxide writes stays asyncio's: `current_task` from 3.12 on,
    `all_tasks` from 3.14 on.
"""

from __future__ import annotations

import sys

NATIVE: dict[str, tuple[str, ...]] = {
    "coroutines": ("iscoroutine",),
    "futures": ("Future", "isfuture", "wrap_future"),
    "streams": (
        "StreamReader",
        "StreamReaderProtocol",
        "StreamWriter",
        "open_connection",
        "open_unix_connection",
        "start_server",
        "start_unix_server",
    ),
    "locks": ("Lock", "Event", "Condition", "Semaphore", "BoundedSemaphore", "Barrier"),
    "queues": ("Queue", "PriorityQueue", "LifoQueue"),
    "staggered": ("staggered_race",),
    "taskgroups": ("TaskGroup",),
    "tasks": (
        "Task",
        "as_completed",
        "create_eager_task_factory",
        "create_task",
        "eager_task_factory",
        "ensure_future",
        "gather",
        "run_coroutine_threadsafe",
        "shield",
        "sleep",
        "wait",
        "wait_for",
        *(("all_tasks",) if sys.version_info < (3, 14) else ()),  # N3
    ),
    "threads": ("to_thread",),
    "timeouts": ("Timeout", "timeout", "timeout_at"),
}
