"""aiohttp, server and client: many requests at once, streams, web sockets, timeouts, and the end of `run_app`."""

from __future__ import annotations

import http.client
import signal
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PACKAGES = ["aiohttp"]
PROGRAMS = Path(__file__).resolve().parent / "programs"
LOOPS = {"python": "asyncio.unix_events", "ioxide": "ioxide", "ioxide debug": "ioxide"}

EXCHANGES = [
    "at once True",
    "download None True",
    "download deflate True",
    "upload in pieces True",
    "upload at once True",
    "texts True",
    "binary True",
    "closed CLOSE 4000 as you wish 4000",
    "talks True",
    "timeout TimeoutError",
    "cancelled ('enough',)",
    "the server's handlers were cancelled too",
    "broken ClientPayloadError",
]


def test_server_and_client(same_on_both: Callable[..., list[str]], tmp_path: Path) -> None:
    lines = same_on_both("aiohttp_both_ends.py", str(tmp_path / "aiohttp.sock"))
    assert lines == [*EXCHANGES, "keep-alive 1 connection", *EXCHANGES, "refused ClientConnectorError 111"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("way", LOOPS)
def test_run_app_ends_gracefully(way: str, stop: signal.Signals, start: Callable[..., Any]) -> None:
    server = start(way, str(PROGRAMS / "aiohttp_application.py"))
    assert server.read_line() == LOOPS[way]
    told = server.read_line()
    address = told.removeprefix("======== Running on ").removesuffix(" ========")
    assert server.read_line() == "(Press CTRL+C to quit)"
    with urllib.request.urlopen(f"{address}/hello/you", timeout=30) as response:
        assert response.read() == b"Hello, you"

    answers: list[bytes] = []

    def ask_slowly() -> None:
        with urllib.request.urlopen(f"{address}/slow", timeout=30) as response:
            answers.append(response.read())

    asking = threading.Thread(target=ask_slowly)
    asking.start()
    assert server.read_line() == "slow begins"
    ended = server.stop(stop)
    asking.join()
    # The request that was being answered is answered, and nothing else is waited for.
    assert answers == [b"slow"]
    assert ended == (0, ["shutting down", "slow ends", "cleaned up", "run_app returned"], "")


@pytest.mark.parametrize("way", LOOPS)
def test_run_app_on_a_unix_socket(way: str, start: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "aiohttp.sock"
    server = start(way, str(PROGRAMS / "aiohttp_application.py"), str(path))
    assert server.read_line() == LOOPS[way]
    server.read_line()
    assert server.read_line() == "(Press CTRL+C to quit)"
    assert path.is_socket()
    status, _, errors = server.stop(signal.SIGTERM)
    assert (status, errors) == (0, "")


def test_a_client_may_leave_in_the_middle(start: Callable[..., Any]) -> None:
    """The server neither logs an error nor stops serving others."""
    ends = {}
    for way in LOOPS:
        server = start(way, str(PROGRAMS / "aiohttp_application.py"))
        server.read_line()
        port = int(server.read_line().removesuffix(" ========").rpartition(":")[2])
        server.read_line()
        for _ in range(10):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.putrequest("GET", "/hello/nobody")  # the end of the head is never sent
            connection.send(b"X-Half: ")
            connection.close()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/hello/you", timeout=30) as response:
            assert response.read() == b"Hello, you"
        ends[way] = server.stop(signal.SIGINT)
    assert ends == dict.fromkeys(LOOPS, (0, ["shutting down", "cleaned up", "run_app returned"], ""))
