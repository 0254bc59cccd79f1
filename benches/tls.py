"""Claim: an echo server over TLS on ioxide costs little more than a C loop on OpenSSL, and a fraction of uvloop's.

Measures the server's CPU per request of asyncio.Protocol servers over TLS 1.3, loop by loop, beside the limit
(c/tls_echo.c, server) under the same load (c/tls_echo.c, client), for messages of 1 KiB and of 16 KiB; and the memory of
idle connections.

usage: tls.py [--loops …] [--rounds N] [--seconds S] [--connections N] [--check]
       tls.py --serve LOOP FILE        the measured server: certificate and key in FILE

Invariants:
 1. Server and client are pinned to two cores; one server runs at a time, each in a new process.
 2. Every contender runs once in every round; a ratio compares two runs of the same round.
 3. All sides use the same OpenSSL and the same key; the client compares every byte.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile

import loops
import machine
import report
from echo_server import Echo, forever, listen
from processes import Failed, Process

LIMIT = "C OpenSSL"
SIZES = (1024, 16384)
WARM_UP = 50  # connections, before memory is counted
# The most CPU per request that is promised for 100 connections: times the limit's, times uvloop's.
GOALS = {1024: (1.4, 0.35), 16384: (1.4, 0.6)}
# {contender: {round: CPU nanoseconds per request}}
Costs = dict[str, dict[int, float]]


async def serve(file: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    async with await asyncio.get_running_loop().create_server(Echo, sock=listen(["tcp"]), ssl=context, backlog=4096):
        await forever()


def make_certificate(directory: str) -> str:
    """Certificate and key in one file, good for this run only."""
    path = os.path.join(directory, "server.pem")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    command = ["openssl", "req", "-x509", *key, "-subj", "/CN=localhost", "-days", "1", "-keyout", path, "-out", f"{path}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    with open(f"{path}.crt") as certificate, open(path, "a") as file:
        file.write(certificate.read())
    return path


def command_of(name: str, program: str, certificate: str) -> list[str]:
    return [program, "server", certificate] if name == LIMIT else [sys.executable, __file__, "--serve", name, certificate]


def idle_bytes(name: str, program: str, certificate: str, count: int) -> float:
    """Resident bytes of the server for each of so many connections that have echoed once and are silent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    command = command_of(name, program, certificate)
    with Process("server", machine.MEASURED_CORE, command) as server, contextlib.ExitStack() as open_ones:
        port = int(server.hear().split()[1])

        def connect() -> None:
            connection = context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=20))
            open_ones.enter_context(connection)
            connection.sendall(b"x" * SIZES[0])
            left = SIZES[0]
            while left:
                left -= len(connection.recv(left))

        for _ in range(WARM_UP):
            connect()
        before = machine.resident_bytes(server.id)
        for _ in range(count):
            connect()
        return (machine.resident_bytes(server.id) - before) / count


def measure(name: str, size: int, program: str, certificate: str, options: argparse.Namespace) -> float:
    with Process("server", machine.MEASURED_CORE, command_of(name, program, certificate)) as server:
        port = server.hear().split()[1]
        load = [program, "client", port, str(options.connections), str(size), str(options.seconds)]
        with Process("client", machine.CLIENT_CORE, load) as client:
            client.hear()
            began = machine.cpu_nanoseconds(server.id)
            answer = json.loads(client.ask("go"))
            return (machine.cpu_nanoseconds(server.id) - began) / float(answer["requests"])


def collect(size: int, names: list[str], program: str, certificate: str, options: argparse.Namespace) -> Costs:
    contenders = [LIMIT, *names]
    costs: Costs = {name: {} for name in contenders}
    for number in range(options.rounds):
        shift = number % len(contenders)
        for name in contenders[shift:] + contenders[:shift]:
            try:
                costs[name][number] = measure(name, size, program, certificate, options)
            except Failed as failure:
                print(f"failed: {name}, {size} bytes: {failure}", file=sys.stderr)
    return costs


def show(costs: Costs, size: int) -> None:
    rows = []
    for name, own in costs.items():
        values = list(own.values())
        if not values:
            rows.append([name, "failed", "", ""])
            continue
        ratios = [report.paired_ratio(own, costs.get(other, {})) for other in (LIMIT, loops.BASELINE)]
        shown = ["" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        rows.append([name, f"{min(values):.0f} · {statistics.median(values):.0f} ±{report.spread(values):.0f}%", *shown])
    header = [f"server, {size} bytes", "CPU ns/request", "× C", f"× {loops.BASELINE}"]
    print(report.table(header, rows) + "\n")


def misses(costs: Costs, size: int) -> list[str]:
    subject = costs.get(loops.SUBJECT, {})
    found = []
    for other, goal in zip((LIMIT, loops.BASELINE), GOALS[size], strict=True):
        ratio = report.paired_ratio(subject, costs.get(other, {}))
        if ratio is None or ratio > goal:
            found.append(f"{size} bytes: {ratio} times {other}, goal {goal}")
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loops", default="asyncio,uvloop,ioxide", help="comma-separated, of: " + ", ".join(loops.FACTORIES))
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--idle", type=int, default=1000, metavar="N", help="idle connections whose memory is measured")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each load lasts")
    parser.add_argument("--check", action="store_true", help="fail if ioxide misses a goal (100 connections)")
    parser.add_argument("--json", metavar="FILE", help="write all samples there")
    parser.add_argument("--serve", nargs=2, metavar=("LOOP", "FILE"), help="be the measured server")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.serve:
        loops.run(options.serve[0], lambda: serve(options.serve[1]))
    names = loops.choose(options.loops)
    os.sched_setaffinity(0, {machine.CLIENT_CORE})
    versions = {name: loops.version(name) for name in names}
    report.heading(f"TLS echo, {options.connections} connections, {ssl.OPENSSL_VERSION}", versions)
    results: dict[int, Costs] = {}
    with tempfile.TemporaryDirectory() as directory:
        program = machine.compile_c("tls_echo", directory, "-lssl", "-lcrypto")
        certificate = make_certificate(directory)
        for size in SIZES:
            results[size] = collect(size, names, program, certificate, options)
            show(results[size], size)
        held = {name: idle_bytes(name, program, certificate, options.idle) for name in [LIMIT, *names]}
    rows = [[name, f"{value:,.0f}"] for name, value in held.items()]
    print(report.table([f"server, {options.idle} idle connections", "bytes per connection"], rows) + "\n")
    report.write_json(options.json, {"claim": "TLS echo", "loops": versions, "runs": results, "idle bytes": held})
    missed = [miss for size in SIZES for miss in misses(results[size], size)] if options.check else []
    if options.check and held.get(loops.SUBJECT, 0) > held.get("asyncio", float("inf")):
        missed.append("memory of an idle connection: more than asyncio's")
    for miss in missed:
        print(f"goal missed: {miss}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
