"""redis.asyncio against a real redis-server, over TCP and over its Unix socket."""

from __future__ import annotations

from collections.abc import Callable

import pytest

PACKAGES = ["redis"]


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_redis_asyncio(family: str, redis_server: tuple[str, str], same_on_both: Callable[..., list[str]]) -> None:
    lines = same_on_both("redis_commands.py", getattr(redis_server, family))
    assert lines == [
        "set True b'ioxide'",
        "big True",
        "pipeline 1000 1000 1000",
        "error value is not an integer or out of range",
        "at once True",
        "messages True",
        "blpop times out on the server None",
        "timeout TimeoutError()",
        "cancelled ('enough',)",
        "after True",
        "refused True",
        "tasks left 0",
    ]
