"""asyncpg against the server whose URL is the first argument: queries, transactions, COPY, messages, timeouts."""

import asyncio
import hashlib
import io
import sys

import asyncpg


async def queries(connection: asyncpg.Connection) -> None:
    await connection.execute("drop table if exists item")
    await connection.execute("create table item (id int primary key, name text, price numeric, added timestamptz)")
    rows = [(number, f"item {number}", number / 4, None) for number in range(1000)]
    await connection.executemany("insert into item values ($1, $2, $3::float8, $4)", rows)
    print("rows", await connection.fetchval("select count(*) from item"))
    print("row", dict(await connection.fetchrow("select id, name, price from item where id = $1", 7)))
    async with connection.transaction():
        total = 0
        async for record in connection.cursor("select id from item order by id", prefetch=50):
            total += record["id"]
    print("cursor", total)
    big = bytes(range(256)) * 40_000
    returned = await connection.fetchval("select $1::bytea", big)
    print("big", hashlib.sha256(returned).digest() == hashlib.sha256(big).digest())
    print("many rows", len(await connection.fetch("select * from generate_series(1, 100000)")))


async def errors(connection: asyncpg.Connection) -> None:
    try:
        await connection.execute("insert into item values (1)")
    except asyncpg.UniqueViolationError as error:
        print("error", error.constraint_name)
    try:
        async with connection.transaction():
            await connection.execute("delete from item")
            raise LookupError("changed my mind")
    except LookupError as error:
        print("rolled back", error, await connection.fetchval("select count(*) from item"))


async def copies(connection: asyncpg.Connection) -> None:
    written = io.BytesIO()
    print("copy out", await connection.copy_from_query("select id, name from item order by id", output=written))
    print("bytes", len(written.getvalue()))
    await connection.execute("create temporary table copied (id int, name text)")
    written.seek(0)
    print("copy in", await connection.copy_to_table("copied", source=written))


async def many_at_once(pool: asyncpg.Pool) -> None:
    async def one(number: int) -> int:
        async with pool.acquire() as connection, connection.transaction():
            return await connection.fetchval("select $1::int + 1 from pg_sleep(0.001)", number)

    answers = await asyncio.gather(*map(one, range(200)))
    print("at once", answers == list(range(1, 201)), "with", pool.get_size(), "connections")


async def messages(pool: asyncpg.Pool) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with pool.acquire() as listener, pool.acquire() as speaker:

        def on_message(_connection: object, _process: int, _channel: str, payload: str) -> None:
            heard.put_nowait(payload)

        await listener.add_listener("news", on_message)
        for number in range(20):
            await speaker.execute("select pg_notify('news', $1)", str(number))
        print("messages", [await heard.get() for _ in range(20)] == [str(number) for number in range(20)])
        await listener.remove_listener("news", on_message)


async def timeouts(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        try:
            await connection.fetchval("select pg_sleep(30)", timeout=0.1)
        except TimeoutError as error:
            print("timeout", repr(error))
        waiting = asyncio.create_task(connection.fetchval("select pg_sleep(30)"))
        await asyncio.sleep(0.1)
        waiting.cancel("enough")
        try:
            await waiting
        except asyncio.CancelledError as error:
            print("cancelled", error.args)
        # Both queries were cancelled on the server: the same connection goes on.
        print("after", await connection.fetchval("select 42"))


async def main() -> None:
    print(type(asyncio.get_running_loop()).__module__)
    url = sys.argv[1]
    connection = await asyncpg.connect(url)
    try:
        print("encrypted", await connection.fetchval("select ssl from pg_stat_ssl where pid = pg_backend_pid()"))
        await queries(connection)
        await errors(connection)
        await copies(connection)
    finally:
        await connection.close()
    async with asyncpg.create_pool(url, min_size=10, max_size=10) as pool:
        await many_at_once(pool)
        await messages(pool)
        await timeouts(pool)
    try:
        await asyncpg.connect("postgresql://postgres@/postgres?host=/nowhere")
    except OSError as error:
        print("refused", type(error).__name__, error.errno)
    print("tasks left", len(asyncio.all_tasks()) - 1)


asyncio.run(main())
