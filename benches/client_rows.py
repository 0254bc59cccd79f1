"""The rows of clients.py: what programs do that talk to servers, each through the library that its users use.

Where the server is, the environment says: BENCH_SERVER.

Invariants:
 1. A row does exactly `operations` operations, `batch` of them at once, and closes what it has opened.
 2. Answers are checked.
"""

from __future__ import annotations

import asyncio
import os
import socket

from worker import Row

BODY = 1024


def server() -> str:
    return os.environ["BENCH_SERVER"]


async def fetch_with_aiohttp(operations: int, batch: int) -> None:
    import aiohttp

    connector = aiohttp.TCPConnector(limit=batch)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def fetch() -> None:
            async with session.get(server()) as response:
                assert response.status == 200 and len(await response.read()) == BODY

        await asyncio.gather(*[fetch() for _ in range(operations)])


async def fetch_with_httpx(operations: int, batch: int) -> None:
    import httpx

    limits = httpx.Limits(max_connections=batch, max_keepalive_connections=batch)
    async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:

        async def fetch() -> None:
            response = await client.get(server())
            assert response.status_code == 200 and len(response.content) == BODY

        await asyncio.gather(*[fetch() for _ in range(operations)])


async def query(operations: int, batch: int) -> None:
    """One connection for each of `batch` tasks, one query after the other on each."""
    import asyncpg

    async with asyncpg.create_pool(server(), min_size=batch, max_size=batch) as pool:

        async def ask() -> None:
            async with pool.acquire() as connection:
                for number in range(operations // batch):
                    assert await connection.fetchval("SELECT $1::int + 1", number) == number + 1

        await asyncio.gather(*[ask() for _ in range(batch)])


async def fetch_rows(operations: int, batch: int) -> None:
    """One operation is one row of a hundred that a query gives."""
    import asyncpg

    async with asyncpg.create_pool(server(), min_size=batch, max_size=batch) as pool:

        async def ask() -> None:
            async with pool.acquire() as connection:
                for _ in range(operations // batch // 100):
                    assert len(await connection.fetch("SELECT i, 'row ' || i FROM generate_series(1, 100) AS i")) == 100

        await asyncio.gather(*[ask() for _ in range(batch)])


async def redis_commands(operations: int, batch: int) -> None:
    import redis.asyncio

    pool = redis.asyncio.BlockingConnectionPool.from_url(server(), max_connections=batch, timeout=None)
    async with redis.asyncio.Redis(connection_pool=pool) as client:

        async def ask(number: int) -> None:
            for _ in range(operations // batch):
                await client.set(f"key {number}", "value")

        await asyncio.gather(*[ask(number) for number in range(batch)])
    await pool.disconnect()


async def redis_pipelines(operations: int, batch: int) -> None:
    """A hundred commands a pipeline; one operation is one command."""
    import redis.asyncio

    async with redis.asyncio.Redis.from_url(server()) as client:
        for _ in range(operations // 100):
            async with client.pipeline(transaction=False) as pipeline:
                for number in range(100):
                    pipeline.set(f"key {number}", number)
                assert all(await pipeline.execute())


async def look_up_name(operations: int, batch: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(operations // batch):
        answers = await asyncio.gather(*[loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM) for _ in range(batch)])
        assert all(answers)


async def look_up_address(operations: int, batch: int) -> None:
    """A literal address needs no look-up."""
    loop = asyncio.get_running_loop()
    for _ in range(operations // batch):
        answers = await asyncio.gather(*[loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM) for _ in range(batch)])
        assert all(answers)


ROWS: dict[str, Row] = {
    "aiohttp, 1,000 URLs": Row(fetch_with_aiohttp, 1000),
    "httpx, 1,000 URLs": Row(fetch_with_httpx, 1000),
    "queries on 10 connections": Row(query, 2000),
    "rows of queries on 10 connections": Row(fetch_rows, 20_000),
    "commands on 10 connections": Row(redis_commands, 2000),
    "pipelines of 100 commands": Row(redis_pipelines, 10_000),
    "localhost, 100 at once": Row(look_up_name, 2000),
    "127.0.0.1, 100 at once": Row(look_up_address, 5000),
}
