"""Claim: programs that talk to servers (HTTP clients, databases, names) need less CPU on ioxide than on any other loop.

The rows are client_rows.py's, the servers are those of servers.py, on the other core.

Invariants:
 1. One process a contender and round does all rows of a workload; only one runs at any time.
 2. Every contender talks to the same server.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import servers
import worker
from client_rows import ROWS
from suite import NO_DEARER_THAN_PEERS, Context, Measure, Workload

Start = Callable[[Context], AbstractContextManager[str]]


@contextlib.contextmanager
def session(contender: str, context: Context, start: Start | None, batch: int, unit: int) -> Iterator[Measure]:
    environment = {}
    if start is not None:
        environment["BENCH_SERVER"] = context.server(start.__name__, lambda: start(context))
    with worker.started(contender, "client_rows", environment) as ask:

        def measure(case: str) -> dict[str, float]:
            return ask(case, max(context.operations(ROWS[case].operations) // unit, 1) * unit, batch)

        yield measure


def redis(context: Context) -> AbstractContextManager[str]:
    return servers.redis()


def postgres(context: Context) -> AbstractContextManager[str]:
    return servers.postgres()


def workload(
    name: str, claim: str, cases: tuple[str, ...], start: Start | None, batch: int, unit: int, packages: tuple[str, ...]
) -> Workload:
    measure = functools.partial(session, start=start, batch=batch, unit=unit)
    return Workload(
        name,
        claim,
        cases,
        measure,
        details=("wall_ns", "threads", "peak_kib"),
        packages=packages,
        unit="CPU nanoseconds of the client per operation",
        goals=NO_DEARER_THAN_PEERS,
        short=cases[:1],
    )


WORKLOADS = [
    workload(
        "http-clients",
        "1,000 URLs are fetched for less CPU, a hundred at a time.",
        ("aiohttp, 1,000 URLs", "httpx, 1,000 URLs"),
        servers.http,
        100,
        100,
        ("aiohttp", "httpx"),
    ),
    workload(
        "postgres",
        "asyncpg needs less CPU.",
        ("queries on 10 connections", "rows of queries on 10 connections"),
        postgres,
        10,
        1000,
        ("asyncpg",),
    ),
    workload(
        "redis",
        "redis-py needs less CPU.",
        ("commands on 10 connections", "pipelines of 100 commands"),
        redis,
        10,
        100,
        ("redis",),
    ),
    workload(
        "names", "Names are looked up for less CPU.", ("localhost, 100 at once", "127.0.0.1, 100 at once"), None, 100, 100, ()
    ),
]
