"""Claim: an echo server over TLS on ioxide costs little more than a C loop on OpenSSL, and a fraction of uvloop's.

The server's CPU per request of asyncio.Protocol servers over TLS 1.3, beside the limit (c/tls_echo.c, server) under the same
load (c/tls_echo.c, client); and the memory of idle connections.

usage: tls.py LOOP FILE        the measured server: certificate and key in FILE

Invariants:
 1. Server and client are pinned to two cores; one server runs at a time, each in a new process.
 2. All sides use the same OpenSSL and the same key; the client compares every byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys

import loops
import machine
from echo_server import Echo, forever, listen
from processes import Process
from suite import Context, Figures, Goal, Workload, each

LIMIT = "C OpenSSL"
SIZES = {"1 KiB": 1024, "16 KiB": 16384}
IDLE = 1000
WARM_UP = 50  # connections, before memory is counted


async def serve(file: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server = await asyncio.get_running_loop().create_server(Echo, sock=listen(["tcp"]), ssl=context, backlog=4096)
    await forever()
    server.close()


def make_certificate(directory: str) -> str:
    """Certificate and key in one file, good for this run only."""
    path = os.path.join(directory, "server.pem")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    command = ["openssl", "req", "-x509", *key, "-subj", "/CN=localhost", "-days", "1", "-keyout", path, "-out", f"{path}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    with open(f"{path}.crt") as certificate, open(path, "a") as file:
        file.write(certificate.read())
    return path


def command_of(name: str, context: Context) -> list[str]:
    certificate = context.once("certificate", lambda: make_certificate(context.folder))
    program = context.program("tls_echo", "-lssl", "-lcrypto")
    return [program, "server", certificate] if name == LIMIT else [sys.executable, __file__, name, certificate]


def idle_bytes(name: str, context: Context, case: str) -> Figures:
    """Resident bytes of the server for each of so many connections that have echoed once and are silent."""
    del case
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    command, count = command_of(name, context), context.operations(IDLE, 20)
    with (
        Process("server", machine.MEASURED_CORE, command, loops.environment(name)) as server,
        contextlib.ExitStack() as open_ones,
    ):
        port = int(server.hear().split()[1])

        def connect() -> None:
            connection = client.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=20))
            open_ones.enter_context(connection)
            connection.sendall(b"x" * 1024)
            left = 1024
            while left:
                left -= len(connection.recv(left))

        for _ in range(WARM_UP):
            connect()
        before = machine.resident_bytes(server.id)
        for _ in range(count):
            connect()
        return {"bytes": (machine.resident_bytes(server.id) - before) / count}


def measure(name: str, context: Context, case: str) -> Figures:
    with Process("server", machine.MEASURED_CORE, command_of(name, context), loops.environment(name)) as server:
        port = server.hear().split()[1]
        program = context.program("tls_echo", "-lssl", "-lcrypto")
        load = [program, "client", port, "100", str(SIZES[case]), str(context.seconds)]
        with Process("client", machine.CLIENT_CORE, load) as client:
            client.hear()
            begun = machine.cpu_nanoseconds(server.id)
            answer = json.loads(client.ask("go"))
            cpu = machine.cpu_nanoseconds(server.id) - begun
        return {
            "cpu_ns": cpu / answer["requests"],
            "per_second": answer["requests"] / answer["seconds"],
            "threads": machine.threads(server.id),
            "peak_kib": machine.peak_kib(server.id),
        }


CONTENDERS = (*loops.COMMON[:-2], loops.FASTNET, loops.LOOP_ALONE, loops.SUBJECT)
WORKLOADS = [
    Workload(
        "tls",
        "TLS costs little more than a C loop on OpenSSL: 100 connections.",
        tuple(SIZES),
        each(measure),
        CONTENDERS,
        (LIMIT,),
        unit="CPU nanoseconds of the server per request",
        details=("per_second", "threads", "peak_kib"),
        baseline=LIMIT,
        goals=(Goal(LIMIT, 1.4), Goal(loops.BASELINE, 0.35, ("1 KiB",)), Goal(loops.BASELINE, 0.6, ("16 KiB",))),
        packages=("ssl",),
    ),
    Workload(
        "tls-memory",
        "An idle TLS connection takes at most asyncio's memory.",
        ("idle connection",),
        each(idle_bytes),
        CONTENDERS,
        (LIMIT,),
        figure="bytes",
        unit="resident bytes of the server per idle connection",
        goals=(Goal("asyncio", 1.0),),
        short=None,
        baseline="asyncio",
        most_rounds=3,
    ),
]

if __name__ == "__main__":
    loops.run(sys.argv[1], lambda: serve(sys.argv[2]))
