"""Counts in Redis from many tasks at once, and listens to what one of them publishes.

pip install redis; ioxide run examples/redis_client.py [url]
"""

import asyncio
import sys

from redis.asyncio import Redis


async def count(client: Redis, times: int) -> None:
    for _ in range(times):
        await client.incr("ioxide:counter")


async def main(url: str) -> None:
    async with Redis.from_url(url, decode_responses=True) as client, client.pubsub() as listener:
        await client.delete("ioxide:counter")
        await listener.subscribe("ioxide:news")
        await listener.get_message(timeout=5)  # the confirmation
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(count(client, 100))
        print(f"10 tasks counted to {await client.get('ioxide:counter')}")
        await client.publish("ioxide:news", "all counted")
        message = await listener.get_message(timeout=5)
        print(f"Heard: {message['data'] if message else None}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "redis://127.0.0.1:6379"))
