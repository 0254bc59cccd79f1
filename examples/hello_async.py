"""One coroutine that sleeps and returns a value. Run it: ioxide run examples/hello_async.py"""

import asyncio


async def greet(name: str) -> str:
    print(f"Greeting {name} in a second")
    await asyncio.sleep(1)
    return f"Hello, {name}!"


async def main() -> None:
    greeting = await greet("asyncio")
    print(greeting)


if __name__ == "__main__":
    asyncio.run(main())
