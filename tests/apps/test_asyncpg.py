"""asyncpg against a real PostgreSQL, over TCP, over its Unix socket and over TLS."""

from __future__ import annotations

from collections.abc import Callable

import pytest

PACKAGES = ["asyncpg"]


@pytest.mark.parametrize("family", ["tcp", "unix", "tls"])
def test_asyncpg(family: str, postgres_server: tuple[str, str, str], same_on_both: Callable[..., list[str]]) -> None:
    lines = same_on_both("postgres_queries.py", getattr(postgres_server, family))
    assert lines == [
        f"encrypted {family == 'tls'}",
        "rows 1000",
        "row {'id': 7, 'name': 'item 7', 'price': Decimal('1.75')}",
        "cursor 499500",
        "big True",
        "many rows 100000",
        "error item_pkey",
        "rolled back changed my mind 1000",
        "copy out COPY 1000",
        "bytes 12780",
        "copy in COPY 1000",
        "at once True with 10 connections",
        "messages True",
        "timeout TimeoutError()",
        "cancelled ('enough',)",
        "after 42",
        "refused FileNotFoundError 2",
        "tasks left 0",
    ]
