"""Three tasks at once: they finish in the order of their delays, in the time of the longest."""

import asyncio
import time


async def task(name: str, delay: float) -> str:
    print(f"{name} started")
    await asyncio.sleep(delay)
    print(f"{name} finished")
    return f"{name} took {delay} seconds"


async def main() -> None:
    begun = time.perf_counter()
    results = await asyncio.gather(task("Task 1", 2), task("Task 2", 3), task("Task 3", 1))
    print(results)
    print(f"All tasks finished in {time.perf_counter() - begun:.0f} seconds")


if __name__ == "__main__":
    asyncio.run(main())
