"""Claim: web servers written by others serve a request for less CPU on ioxide than on any other loop.

uvicorn (httptools) with a small ASGI application, aiohttp's server, the websockets library: web_server.py. The load is c/load.c.

Invariants:
 1. As in echo.py, whose method this is.
"""

from __future__ import annotations

import sys

import echo
import machine
from suite import NO_DEARER_THAN_PEERS, Context, Figures, Workload, each

CONNECTIONS = 64
HTTP = {"uvicorn with httptools": "uvicorn", "aiohttp server": "aiohttp"}
WEBSOCKETS = {"websockets, 1 KiB": 1024, "websockets, 64 B": 64}


def measure(contender: str, context: Context, case: str) -> Figures:
    kind = HTTP.get(case, "websockets")
    command = [sys.executable, str(machine.HERE / "web_server.py"), contender, kind]
    speech = "http" if case in HTTP else "websocket"
    load = echo.Load(kind, connections=CONNECTIONS, size=WEBSOCKETS.get(case, 1), speech=speech)
    return echo.serve_and_load(command, contender, load, context)


WORKLOADS = [
    Workload(
        "http",
        f"A request through uvicorn or aiohttp costs less CPU than on any other loop: {CONNECTIONS} connections.",
        tuple(HTTP),
        each(measure),
        unit="CPU nanoseconds of the server per request",
        details=echo.DETAILS,
        goals=NO_DEARER_THAN_PEERS,
        packages=("uvicorn", "httptools", "aiohttp"),
    ),
    Workload(
        "websockets",
        f"A message through the websockets library costs less CPU than on any other loop: {CONNECTIONS} connections.",
        tuple(WEBSOCKETS),
        each(measure),
        unit="CPU nanoseconds of the server per message",
        details=echo.DETAILS,
        goals=NO_DEARER_THAN_PEERS,
        packages=("websockets",),
        short=("websockets, 1 KiB",),
    ),
]
