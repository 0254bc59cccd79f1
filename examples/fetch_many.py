"""Fetches many URLs at once with aiohttp, from a server that this program starts on a free port.

pip install aiohttp; ioxide run examples/fetch_many.py [count]
"""

import asyncio
import sys
import time

from aiohttp import ClientSession, TCPConnector, web

DELAY = 0.1  # what each answer takes, as if a database were asked


async def page(request: web.Request) -> web.Response:
    await asyncio.sleep(DELAY)
    return web.Response(text=f"page {request.match_info['number']}")


async def start_server() -> tuple[web.AppRunner, str]:
    application = web.Application()
    application.router.add_get("/page/{number}", page)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()  # all may knock at once
    host, port = runner.addresses[0][:2]
    return runner, f"http://{host}:{port}"


async def fetch(session: ClientSession, url: str) -> str:
    async with session.get(url) as response:
        return await response.text()


async def main(count: int) -> None:
    runner, address = await start_server()
    async with ClientSession(connector=TCPConnector(limit=0)) as session:  # no limit: all at once
        begun = time.perf_counter()
        pages = await asyncio.gather(*(fetch(session, f"{address}/page/{number}") for number in range(count)))
        seconds = time.perf_counter() - begun
    await runner.cleanup()
    assert pages == [f"page {number}" for number in range(count)]
    print(f"Fetched {len(pages)} pages, the last one is {pages[-1]!r}")
    print(f"One after another they would take {count * DELAY:.0f} seconds; at once it took {seconds:.2f}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 400))
