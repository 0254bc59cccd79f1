"""redis.asyncio against the server whose URL is the first argument: commands, pipelines, messages, timeouts."""

import asyncio
import hashlib
import sys

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RefusedError
from redis.exceptions import ResponseError


async def commands(client: redis.Redis) -> None:
    await client.flushdb()
    print("set", await client.set("name", "ioxide"), await client.get("name"))
    big = bytes(range(256)) * 20_000
    await client.set("big", big)
    print("big", hashlib.sha256(await client.get("big")).hexdigest() == hashlib.sha256(big).hexdigest())
    async with client.pipeline(transaction=True) as pipeline:
        for number in range(1000):
            pipeline.rpush("list", number)
        answers = await pipeline.execute()
    print("pipeline", len(answers), answers[-1], len(await client.lrange("list", 0, -1)))
    try:
        await client.incr("name")
    except ResponseError as error:
        print("error", error)


async def many_at_once(client: redis.Redis) -> None:
    answers = await asyncio.gather(*(client.incr("counter") for _ in range(200)))
    print("at once", sorted(answers) == list(range(1, 201)))


async def messages(client: redis.Redis) -> None:
    heard = []

    async def listen(subscribed: asyncio.Event) -> None:
        async with client.pubsub() as channel:
            await channel.subscribe("news")
            async for message in channel.listen():
                if message["type"] == "subscribe":
                    subscribed.set()
                elif message["data"] == b"end":
                    return
                else:
                    heard.append(message["data"])

    subscribed = asyncio.Event()
    listener = asyncio.create_task(listen(subscribed))
    await subscribed.wait()
    for number in range(100):
        await client.publish("news", number)
    await client.publish("news", "end")
    await listener
    print("messages", heard == [b"%d" % number for number in range(100)])


async def timeouts(client: redis.Redis) -> None:
    print("blpop times out on the server", await client.blpop("nothing", timeout=0.1))
    try:
        async with asyncio.timeout(0.1):
            await client.blpop("nothing", timeout=30)
    except TimeoutError as error:
        print("timeout", repr(error))
    waiting = asyncio.create_task(client.blpop("nothing", timeout=30))
    await asyncio.sleep(0.1)
    waiting.cancel("enough")
    try:
        await waiting
    except asyncio.CancelledError as error:
        print("cancelled", error.args)
    # The connections of the two were thrown away, and the client goes on.
    print("after", await client.ping())


async def refused() -> None:
    try:
        async with redis.Redis(unix_socket_path="/nowhere/redis.sock", retry=Retry(NoBackoff(), 0)) as client:
            await client.ping()
    except RefusedError as error:
        print("refused", "No such file or directory" in str(error))


async def main() -> None:
    print(type(asyncio.get_running_loop()).__module__)
    async with redis.from_url(sys.argv[1], max_connections=250) as client:
        await commands(client)
        await many_at_once(client)
        await messages(client)
        await timeouts(client)
    await refused()
    print("tasks left", len(asyncio.all_tasks()) - 1)


asyncio.run(main())
