"""The servers that web.py measures: programs of others, as their users would run them, one loop, one process.

usage: web_server.py CONTENDER KIND       prints "listening PORT" and serves until it is killed

Invariants:
 1. Each answers `GET /` with the same 13 bytes, or sends back each message; neither logs.
"""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import loops
from echo_server import forever, listen

BODY = b"Hello, world!"


async def application(
    scope: dict[str, Any], receive: Callable[..., Awaitable[Any]], send: Callable[..., Awaitable[None]]
) -> None:
    """The smallest ASGI application that answers."""
    assert scope["type"] == "http"
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(BODY)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


async def serve_uvicorn(listener: socket.socket) -> None:
    import uvicorn

    options: dict[str, Any] = {"http": "httptools", "ws": "none", "lifespan": "off", "log_level": "error", "access_log": False}
    await uvicorn.Server(uvicorn.Config(application, **options)).serve(sockets=[listener])


async def serve_aiohttp(listener: socket.socket) -> None:
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=BODY, content_type="text/plain")

    site = web.Application()
    site.router.add_get("/", answer)
    runner = web.AppRunner(site, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listener, backlog=4096).start()
    await forever()


async def serve_websockets(listener: socket.socket) -> None:
    from websockets.asyncio.server import ServerConnection, serve

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    logging.getLogger("websockets").setLevel(logging.CRITICAL)  # of clients that end without a farewell
    async with serve(echo, sock=listener, compression=None, ping_interval=None):
        await forever()


KINDS: dict[str, Callable[[socket.socket], Awaitable[None]]] = {
    "uvicorn": serve_uvicorn,
    "aiohttp": serve_aiohttp,
    "websockets": serve_websockets,
}


async def main(kind: str) -> None:
    await KINDS[kind](listen(["tcp"]))


if __name__ == "__main__":
    loops.run(sys.argv[1], lambda: main(sys.argv[2]))
