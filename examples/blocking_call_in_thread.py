"""A blocking call moved to a thread, so that the event loop goes on meanwhile."""

import asyncio
import time


def blocking_call() -> str:
    print("Blocking call started")
    time.sleep(2)
    print("Blocking call finished")
    return "Result of the blocking call"


async def tick() -> None:
    for number in (1, 2, 3):
        await asyncio.sleep(0.5)
        print(f"Tick {number}")


async def main() -> None:
    result, _ = await asyncio.gather(asyncio.to_thread(blocking_call), tick())
    print(result)


if __name__ == "__main__":
    asyncio.run(main())
