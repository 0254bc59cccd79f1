"""A server whose connections are noted, and plain sockets that connect to it.

Invariants
1. Nothing waits for a time: a test waits until something has happened.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from recorder import TIMEOUT, Recorder


async def serve(**options: Any) -> tuple[Any, list[Recorder]]:
    """A server on a free port, and the protocols of its connections in the order in which they came."""
    protocols: list[Recorder] = []

    def factory() -> Recorder:
        protocols.append(Recorder())
        return protocols[-1]

    return await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0, **options), protocols


async def dial(server: Any) -> socket.socket:
    """A plain socket that is connected to the server; when it is accepted is the server's affair."""
    peer = socket.socket()
    peer.setblocking(False)
    await asyncio.get_running_loop().sock_connect(peer, server.sockets[0].getsockname())
    return peer


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0.001)


async def outcome(awaitable: Any) -> Any:
    try:
        return await awaitable
    except Exception as error:
        return type(error), str(error)
