"""What the tests of real programs share: a program run on both loops, and real servers for it to talk to.

The programs in programs/ are ordinary asyncio programs that name no loop. Each is run as a process of its own, by plain
Python and by `ioxide run`, and both must print the same; asyncio's output is the oracle. The first line they print is
the module of the running loop's class, which proves who ran them.
What it leaves to others: what a program prints is checked by its own test.

Invariants
1. A leak fails a test: ResourceWarning is an error in every run, and whatever reaches stderr is one too.
2. A server belongs to one test session, lives in a folder of its own and ends with it.
3. What is missing on a developer's machine is skipped with its reason; where CI=true it fails.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, NoReturn

import pytest

PROGRAMS = Path(__file__).resolve().parent / "programs"
PATIENCE_SECONDS = 60
STRICT = ["-W", "error::ResourceWarning", "-W", "error::RuntimeWarning"]
IOXIDE = ["-m", "ioxide", "run"]
WAYS = {
    "python": [sys.executable, *STRICT],
    "ioxide": [sys.executable, *STRICT, *IOXIDE],
    "ioxide debug": [sys.executable, "-X", "dev", *STRICT, *IOXIDE],
}
LOOPS = {"python": "asyncio.unix_events", "ioxide": "ioxide", "ioxide debug": "ioxide"}


def missing(what: str) -> NoReturn:
    """The test cannot run here: a skip at home, a failure where everything is promised to be installed."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing, and CI=true says that nothing is", pytrace=False)
    pytest.skip(f"{what} is missing")


@pytest.fixture(autouse=True, scope="module")
def packages(request: pytest.FixtureRequest) -> None:
    """Looks for what a test file's `PACKAGES` names; its programs import them, in processes of their own."""
    for name in request.module.PACKAGES:
        done = subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            missing(f"the package {name} ({done.stderr.strip().splitlines()[-1]})")


class Output(NamedTuple):
    """The loop that ran the program, and what the program printed after that."""

    loop: str
    lines: list[str]


class Lines:
    """The lines of a pipe, read as they come, so that the program never waits for us."""

    def __init__(self, pipe: IO[str]) -> None:
        self.queue: queue.Queue[str | None] = queue.Queue()
        self.thread = threading.Thread(target=self.read_all, args=[pipe])
        self.thread.start()

    def read_all(self, pipe: IO[str]) -> None:
        with pipe:
            for line in pipe:
                self.queue.put(line)
        self.queue.put(None)

    def read_rest(self) -> str:
        self.thread.join()
        return "".join(line for line in iter(self.queue.get_nowait, None) if line)


class Process:
    """A program that is running, such as a server."""

    def __init__(self, way: str, *arguments: str) -> None:
        self.way = way
        paths = [str(PROGRAMS), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
        pipe = subprocess.PIPE
        self.popen = subprocess.Popen([*WAYS[way], *arguments], stdout=pipe, stderr=pipe, text=True, env=environment)
        assert self.popen.stdout is not None and self.popen.stderr is not None
        self.output, self.errors = Lines(self.popen.stdout), Lines(self.popen.stderr)

    def read_line(self) -> str:
        """The next line of stdout."""
        return self.next_line(self.output)

    def read_error_line(self) -> str:
        """The next line of stderr, where programs log."""
        return self.next_line(self.errors)

    def next_line(self, lines: Lines) -> str:
        line = lines.queue.get(timeout=PATIENCE_SECONDS)
        if line is None:
            lines.queue.put(None)
            pytest.fail(f"{self.popen.args!r} ended early:\n{self.finish()}")
        return line.rstrip("\n")

    def stop(self, number: signal.Signals) -> tuple[int, list[str], str]:
        self.popen.send_signal(number)
        return self.finish()

    def finish(self) -> tuple[int, list[str], str]:
        """The exit status, the lines not yet read and what was written to stderr."""
        status = self.popen.wait(PATIENCE_SECONDS)
        return status, self.output.read_rest().splitlines(), without_slow_callbacks(self.errors.read_rest())

    def kill(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
            self.finish()


def without_slow_callbacks(errors: str) -> str:
    """Debug mode also logs callbacks that took long, which says something about the machine and nothing about the loop."""
    return re.sub(r"^Executing <.*> took \d+\.\d+ seconds\n", "", errors, flags=re.MULTILINE)


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Starts a program that goes on until it is stopped: start(way, "program.py", argument…)."""
    with contextlib.ExitStack() as stack:

        def start(way: str, *arguments: str) -> Process:
            process = Process(way, *arguments)
            stack.callback(process.kill)
            return process

        yield start


def run_program(way: str, program: str, *arguments: str) -> Output:
    """Runs a program to its end; it must succeed and write nothing to stderr."""
    process = Process(way, str(PROGRAMS / program), *arguments)
    try:
        status, lines, errors = process.finish()
    finally:
        process.kill()
    if (status, errors) != (0, "") or not lines:
        printed = "\n".join(lines)
        pytest.fail(f"{program} on {way}: status {status}\n{printed}\n{errors}", pytrace=False)
    return Output(lines[0], lines[1:])


@pytest.fixture
def run_on() -> Callable[..., list[str]]:
    """Runs a program one way and returns what it printed."""

    def run_on(way: str, program: str, *arguments: str) -> list[str]:
        output = run_program(way, program, *arguments)
        assert output.loop == LOOPS[way]
        return output.lines

    return run_on


@pytest.fixture
def same_on_both() -> Callable[..., list[str]]:
    """Runs a program on asyncio and on ioxide, in debug mode too, and returns what all of them printed."""

    def same_on_both(program: str, *arguments: str) -> list[str]:
        outputs = {way: run_program(way, program, *arguments) for way in WAYS}
        assert {way: output.loop for way, output in outputs.items()} == LOOPS
        oracle = outputs["python"].lines
        for output in outputs.values():
            assert output.lines == oracle
        return oracle

    return same_on_both


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_until(is_ready: Callable[[], bool], server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_ready():
        if server.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"{server.args!r} did not start:\n{log.read_text()}")
        time.sleep(0.02)


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Addresses(NamedTuple):
    """A server's ways in, as URLs."""

    tcp: str
    unix: str
    tls: str = ""


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Addresses]:
    """A redis-server of the session's own."""
    program = shutil.which("redis-server")
    if program is None:
        missing("redis-server (package redis-server)")
    with tempfile.TemporaryDirectory(prefix="redis-") as folder, open(f"{folder}/log", "wb") as log:
        path, port = f"{folder}/redis.sock", free_port()
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", path, "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=log, stderr=log) as server, contextlib.ExitStack() as stack:
            stack.callback(server.terminate)
            wait_until(lambda: os.path.exists(path) and is_listening(port), server, Path(log.name))
            yield Addresses(f"redis://127.0.0.1:{port}/0", f"unix://{path}?db=0")


def postgres_program(name: str) -> str:
    """From the path, or from where Debian keeps the programs of each version; the newest."""
    found = shutil.which(name)
    if found is not None:
        return found
    candidates = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
    newest = max(candidates, key=lambda path: int(path.parts[-3]), default=None)
    if newest is None:
        missing(f"PostgreSQL's {name} (package postgresql)")
    return str(newest)


def unprivileged_user() -> str | None:
    """PostgreSQL refuses to be run by root; None where we are somebody else already."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in known:
            return name
    missing("a user other than root, to run PostgreSQL,")


def make_certificate(folder: str) -> tuple[str, str]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        missing("openssl")
    certificate, key = f"{folder}/server.crt", f"{folder}/server.key"
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = [openssl, "req", *kind, *names, "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    os.chmod(key, 0o600)
    return certificate, key


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Addresses]:
    """A PostgreSQL cluster of the session's own, as an unprivileged user."""
    initdb, postgres, user = postgres_program("initdb"), postgres_program("postgres"), unprivileged_user()
    with tempfile.TemporaryDirectory(prefix="postgres-", dir="/tmp") as folder, open(f"{folder}/log", "wb") as log:
        data, port = f"{folder}/data", free_port()
        os.mkdir(data, 0o700)
        certificate, key = make_certificate(folder)
        if user is not None:
            for path in (folder, data, certificate, key):
                shutil.chown(path, user)
        make = [initdb, "--pgdata", data, "--username", "postgres", "--auth", "trust", "--no-sync", "--no-locale"]
        done = subprocess.run(make, stdout=log, stderr=log, user=user, cwd=folder, check=False)
        assert done.returncode == 0, Path(log.name).read_text()
        command = [postgres, "-D", data, "-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1", "-F"]
        command += ["-c", "ssl=on", "-c", f"ssl_cert_file={certificate}", "-c", f"ssl_key_file={key}"]
        with subprocess.Popen(command, stdout=log, stderr=log, user=user, cwd=folder) as server, contextlib.ExitStack() as stack:
            # "Fast shutdown": whoever is still connected is thrown out.
            stack.callback(server.send_signal, signal.SIGINT)
            wait_until(lambda: is_listening(port), server, Path(log.name))
            tcp = f"postgresql://postgres@127.0.0.1:{port}/postgres"
            unix = f"postgresql://postgres@/postgres?host={folder}&port={port}"
            yield Addresses(f"{tcp}?sslmode=disable", unix, f"{tcp}?sslmode=verify-full&sslrootcert={certificate}")
