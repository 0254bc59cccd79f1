"""Real servers for clients.py: PostgreSQL, redis and a small HTTP server in C, each started for one run on the client's core.

Invariants:
 1. A server lives in a folder of its own, listens on the loopback address only, and ends with the run, by its own handle.
 2. What is not installed raises Failed with the name of the package.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import machine
from processes import Failed, Process
from suite import Context

PATIENCE_SECONDS = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise Failed(f"{server.args!r} does not listen: {log.read_text()[-300:]}")


@contextlib.contextmanager
def redis() -> Iterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        raise Failed("redis-server is missing (package redis-server)")
    with tempfile.TemporaryDirectory(prefix="redis-", dir="/tmp") as folder, open(f"{folder}/log", "wb") as log:
        port = free_port()
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with subprocess.Popen(machine.pinned(machine.CLIENT_CORE, command), stdout=log, stderr=log) as server:
            try:
                wait_for_port(port, server, Path(log.name))
                yield f"redis://127.0.0.1:{port}/0"
            finally:
                server.terminate()


def postgres_program(name: str) -> str:
    """From the path, or from where Debian keeps the programs of each version; the newest."""
    candidates = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    found = shutil.which(name) or (str(candidates[-1]) if candidates else None)
    if found is None:
        raise Failed(f"PostgreSQL's {name} is missing (package postgresql)")
    return found


def unprivileged_user() -> str | None:
    """PostgreSQL refuses to be run by root; None where we are somebody else already."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    initdb, program, user = postgres_program("initdb"), postgres_program("postgres"), unprivileged_user()
    with tempfile.TemporaryDirectory(prefix="postgres-", dir="/tmp") as folder, open(f"{folder}/log", "wb") as log:
        data, port = f"{folder}/data", free_port()
        os.mkdir(data, 0o700)
        if user is not None:
            shutil.chown(folder, user)
            shutil.chown(data, user)
        make = [initdb, "--pgdata", data, "--username", "postgres", "--auth", "trust", "--no-sync", "--no-locale"]
        if subprocess.run(make, stdout=log, stderr=log, user=user, cwd=folder).returncode:
            raise Failed(f"initdb failed: {Path(log.name).read_text()[-300:]}")
        command = [program, "-D", data, "-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1", "-F"]
        with subprocess.Popen(command, stdout=log, stderr=log, user=user, cwd=folder) as server:
            try:
                os.sched_setaffinity(server.pid, {machine.CLIENT_CORE})
                wait_for_port(port, server, Path(log.name))
                yield f"postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable"
            finally:
                server.send_signal(signal.SIGINT)  # "fast shutdown": who is still connected is thrown out


@contextlib.contextmanager
def http(context: Context) -> Iterator[str]:
    with Process("server", machine.CLIENT_CORE, [context.program("echo_epoll"), "http"]) as server:
        yield f"http://127.0.0.1:{server.hear().split()[1]}/"
