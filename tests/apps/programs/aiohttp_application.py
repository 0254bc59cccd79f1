"""A server as aiohttp's documentation begins: `web.run_app`. It listens on the Unix socket that is the first argument,
or on a free TCP port, and says what it does."""

import asyncio
import sys

from aiohttp import web


async def hello(request: web.Request) -> web.Response:
    return web.Response(text=f"Hello, {request.match_info['name']}")


async def slow(request: web.Request) -> web.Response:
    print("slow begins")
    await asyncio.sleep(0.5)
    print("slow ends")
    return web.Response(text="slow")


async def life(application: web.Application) -> object:
    loop = asyncio.get_running_loop()
    print(type(loop).__module__)
    ticking = asyncio.create_task(asyncio.Event().wait())
    yield
    ticking.cancel()
    print("cleaned up")


async def shut_down(application: web.Application) -> None:
    print("shutting down")


application = web.Application()
application.add_routes([web.get("/hello/{name}", hello), web.get("/slow", slow)])
application.cleanup_ctx.append(life)
application.on_shutdown.append(shut_down)
path = sys.argv[1] if len(sys.argv) > 1 else None
address = {"path": path} if path else {"host": "127.0.0.1", "port": 0}
web.run_app(application, shutdown_timeout=10, access_log=None, **address)
print("run_app returned")
