"""Claim: an echo server on ioxide costs nearly what a C epoll loop costs, per request, over all its threads.

TCP, Unix sockets and datagrams; by protocol, buffered protocol, streams and sock_*; sizes of messages and numbers of
connections. The servers are echo_server.py's, the limit is c/echo_epoll.c, the load c/load.c for all of them.

Invariants:
 1. Server and client are pinned to two cores; one server runs at a time, each in a new process.
 2. The server's CPU clock is read just before the load and just after it: neither start-up nor warm-up is in it.
 3. The client checks every byte; a server that answers wrongly or not at all is reported as failed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import loops
import machine
from processes import PATIENCE_SECONDS, Failed, Process
from suite import Context, Figures, Goal, Workload, each

LIMIT = "C epoll"
DETAILS = ("per_second", "p50_us", "p99_us", "p999_us", "switches", "threads", "peak_kib", "server_busy", "client_busy")


@dataclass(frozen=True)
class Load:
    """The kind of server in echo_server.py, and what the client asks of it."""

    kind: str
    family: str = "tcp"
    connections: int = 100
    size: int = 1024
    # How the client speaks: bytes, lines, HTTP, WebSocket.
    speech: str = "bytes"


def load_server(server: Process, client: Process, context: Context) -> Figures:
    client.hear()
    switches, cpu = machine.voluntary_switches(server.id), machine.cpu_nanoseconds(server.id)
    found: Figures = json.loads(client.ask("go", PATIENCE_SECONDS + context.seconds))
    cpu, switches = machine.cpu_nanoseconds(server.id) - cpu, machine.voluntary_switches(server.id) - switches
    return {
        "cpu_ns": cpu / found["requests"],
        "requests": found["requests"],
        "per_second": found["requests"] / found["seconds"],
        **{name: found[name] for name in ("p50_us", "p99_us", "p999_us")},
        "switches": switches / found["requests"],
        "threads": machine.threads(server.id),
        "peak_kib": machine.peak_kib(server.id),
        "server_busy": cpu / 1e9 / found["seconds"],
        "client_busy": found["client_cpu_seconds"] / found["seconds"],
    }


def serve_and_load(command: list[str], contender: str, load: Load, context: Context) -> Figures:
    """Starts the server, which says "listening PORT", and loads it."""
    path = os.path.join(context.folder, "echo.socket")
    if os.path.exists(path):
        os.unlink(path)
    with Process("server", machine.MEASURED_CORE, command, loops.environment(contender)) as server:
        port = server.hear().split()[1]
        target = path if load.family == "unix" else port
        words = [load.family, target, load.connections, load.size, load.speech, context.seconds]
        with Process("client", machine.CLIENT_CORE, [context.program("load"), *map(str, words)]) as client:
            try:
                return load_server(server, client, context)
            except (Failed, FileNotFoundError, ProcessLookupError) as failure:
                # The client only sees that nothing answers; a server that ends knows why.
                raise Failed(server.why_it_ended() if server.ends_within(1) else str(failure)) from failure


def measure(contender: str, context: Context, load: Load) -> Figures:
    place = [load.family, *([os.path.join(context.folder, "echo.socket")] if load.family == "unix" else [])]
    if contender == LIMIT:
        command = [context.program("echo_epoll"), *place]
    else:
        command = [sys.executable, str(machine.HERE / "echo_server.py"), contender, load.kind, *place]
    return serve_and_load(command, contender, load, context)


def by_case(cases: dict[str, Load]) -> Callable[[str, Context, str], Figures]:
    return lambda contender, context, case: measure(contender, context, cases[case])


TCP = {kind: Load(kind) for kind in ("protocol", "buffered protocol", "sock_recv/sock_sendall")}
STREAMS = {
    "streams read": Load("streams read"),
    "streams readline": Load("streams readline", speech="lines"),
    "streams readexactly": Load("streams readexactly"),
}
UNIX = {"protocol": Load("protocol", "unix"), "streams read": Load("streams read", "unix")}
UDP = {kind: Load(kind, "udp", connections=50) for kind in ("datagrams", "sock_recvfrom/sock_sendto")}


def size_name(size: int) -> str:
    return f"{size} B" if size < 1024 else f"{size >> 10} KiB" if size < 1 << 20 else f"{size >> 20} MiB"


SIZES = {
    f"{connections:,} connections, {size_name(size)}": Load("protocol", connections=connections, size=size)
    for connections in (1, 10, 100, 1000)
    for size in (64, 1024, 16 << 10, 256 << 10, 1 << 20)
    # With a thousand connections of large messages the kernel's buffers are what is measured.
    if connections < 1000 or size <= 16 << 10
}
CONNECTIONS = {f"{count:,} connections": Load("protocol", connections=count) for count in (10, 100, 1000, 10_000)}


def workload(name: str, claim: str, cases: dict[str, Load], goals: tuple[Goal, ...], **more: object) -> Workload:
    more = {"details": DETAILS, "unit": "CPU nanoseconds of the server per request", **more}
    return Workload(name, claim, tuple(cases), each(by_case(cases)), limits=(LIMIT,), baseline=LIMIT, goals=goals, **more)  # type: ignore[arg-type]


WORKLOADS = [
    workload(
        "tcp",
        "A TCP echo server costs nearly what a C epoll loop costs: 100 connections, 1 KiB.",
        TCP,
        (
            Goal(LIMIT, 1.15, ("protocol",)),
            Goal(LIMIT, 1.2, ("buffered protocol",)),
            Goal(LIMIT, 1.6, ("sock_recv/sock_sendall",)),
        ),
    ),
    workload(
        "streams",
        "Streams cost little more than the loop below them: 100 connections, 1 KiB.",
        STREAMS,
        (Goal(LIMIT, 1.3), Goal(loops.BASELINE, 0.5), Goal("asyncio", 1.0)),
    ),
    workload(
        "unix", "A server on a Unix socket costs nearly what C costs.", UNIX, (Goal(LIMIT, 1.15, ("protocol",)),), short=None
    ),
    workload(
        "udp",
        "A UDP echo costs at most 1.2 times what a C epoll loop costs: 50 peers, 1 KiB.",
        UDP,
        (Goal(LIMIT, 1.2, ("datagrams",)),),
        short=("datagrams",),
    ),
    workload(
        "sizes",
        "The cost follows the kernel's, whatever the number of connections and the size of a message.",
        SIZES,
        (Goal(loops.BASELINE, 1.0),),
        short=None,
        most_rounds=3,
    ),
    workload(
        "many-connections",
        "A request costs the same among ten connections and among ten thousand.",
        CONNECTIONS,
        (Goal(loops.BASELINE, 1.0),),
        growth=True,
        short=None,
        most_rounds=3,
    ),
]
