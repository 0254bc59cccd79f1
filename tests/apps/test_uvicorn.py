"""uvicorn with a FastAPI application, on every way to ask for the loop, and httpx as its client on both loops."""

from __future__ import annotations

import re
import signal
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PACKAGES = ["uvicorn", "fastapi", "httpx"]
APPLICATION = "fastapi_application:application"
# name -> (what runs it, uvicorn's own arguments, the loop's module)
SERVERS = {
    "asyncio": ("python", ["--loop", "asyncio"], "asyncio.unix_events"),
    "--loop ioxide": ("python", ["--loop", "ioxide:new_event_loop"], "ioxide"),
    "ioxide run": ("ioxide", [], "ioxide"),
    "ioxide run, debug": ("ioxide debug", [], "ioxide"),
}
EXCHANGES = [
    "item {'name': 'TEA', 'price': 2.5}",
    "noted ['tea']",
    "invalid 422 ['body', 'price']",
    "missing 404 {'detail': 'no such thing'}",
    "at once True",
    "in threads True",
    "download True",
    "upload True",
    "timeout ReadTimeout('')",
    "cancelled",
    "after {'number': 1}",
    "keep-alive 1 connection",
    "refused [Errno 2] No such file or directory",
]



class Uvicorn:
    """A server that is up: its process, the module of its loop and its address."""

    def __init__(self, start: Callable[..., Any], name: str, *address: str) -> None:
        way, arguments, self.loop = SERVERS[name]
        options = ["--no-use-colors", "--no-access-log", *address, *arguments]
        self.process = start(way, "-m", "uvicorn", APPLICATION, *options)
        while "running on" not in (line := self.process.read_error_line()):
            assert line.startswith(("INFO: ", "Executing <")), line
        found = re.fullmatch(r"INFO: +Uvicorn running on (\S+|unix socket \S+) \(Press CTRL\+C to quit\)", line)
        assert found is not None, line
        self.address = found.group(1)
        assert self.process.read_line() == self.loop

    def stop(self, number: signal.Signals) -> tuple[int, list[str], list[str]]:
        """The exit status, what was printed, and what uvicorn logged about its end."""
        status, lines, errors = self.process.stop(number)
        return status, lines, [re.sub(r"\[\d+\]", "[#]", line) for line in errors.splitlines()]


def log_of_end(*more: str) -> list[str]:
    ended = ["Waiting for application shutdown.", "Application shutdown complete.", "Finished server process [#]"]
    return [f"INFO:     {line}" for line in ["Shutting down", *more, *ended]]


@pytest.mark.parametrize("family", ["tcp", "unix"])
@pytest.mark.parametrize("name", SERVERS)
def test_fastapi_served_by_uvicorn(
    name: str, family: str, start: Callable[..., Any], run_on: Callable[..., list[str]], tmp_path: Path
) -> None:
    path = str(tmp_path / "uvicorn.sock")
    address = ["--port", "0"] if family == "tcp" else ["--uds", path, "--backlog", "1000"]
    server = Uvicorn(start, name, *address)
    client_arguments = [server.address] if family == "tcp" else ["http://unix", path]
    # The client runs as its server does: each loop meets itself, and `--loop ioxide` meets asyncio.
    assert run_on(SERVERS[name][0], "httpx_requests.py", *client_arguments) == EXCHANGES
    status, lines, log = server.stop(signal.SIGTERM)
    assert (lines[-1], log) == ("lifespan ends", log_of_end())
    # uvicorn ends by the signal it was sent, once everything is cleaned up.
    assert status == -signal.SIGTERM


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", SERVERS)
def test_a_request_is_answered_before_the_server_ends(
    name: str, stop: signal.Signals, start: Callable[..., Any]
) -> None:
    server = Uvicorn(start, name, "--port", "0")
    answers: list[bytes] = []

    def ask_slowly() -> None:
        with urllib.request.urlopen(f"{server.address}/slow?seconds=0.5", timeout=30) as response:
            answers.append(response.read())

    asking = threading.Thread(target=ask_slowly)
    asking.start()
    assert server.process.read_line() == "slow begins"
    _, lines, log = server.stop(stop)
    asking.join()
    assert (answers, lines) == ([b'"slow"'], ["slow ends", "lifespan ends"])
    assert log == log_of_end("Waiting for connections to close. (CTRL+C to force quit)")


def test_how_a_server_ends_is_the_same(start: Callable[..., Any]) -> None:
    """The exit status and the log of Ctrl-C."""
    ends = {name: Uvicorn(start, name, "--port", "0").stop(signal.SIGINT) for name in SERVERS}
    assert ends == dict.fromkeys(SERVERS, ends["asyncio"])
