"""Every program in examples/, on plain Python and under `ioxide run`: it prints what a newcomer is told it prints."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
WAYS = {"python": [sys.executable], "ioxide": [sys.executable, "-m", "ioxide", "run"]}
PATIENCE_SECONDS = 60


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> list[str]:
    return WAYS[request.param]


def start(way: list[str], program: str, *arguments: str) -> subprocess.Popen[str]:
    command = [*way, str(EXAMPLES / program), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)


def output_of(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, errors) == (0, "")
    return output


def run(way: list[str], program: str, *arguments: str) -> tuple[list[str], float]:
    """The lines that the program printed, and how many seconds it took."""
    begun = time.monotonic()
    output = output_of(start(way, program, *arguments))
    return output.splitlines(), time.monotonic() - begun


def test_hello_async(way: list[str]) -> None:
    lines, seconds = run(way, "hello_async.py")
    assert lines == ["Greeting asyncio in a second", "Hello, asyncio!"]
    assert seconds >= 1


def test_gather_tasks_finish_in_the_order_of_their_delays(way: list[str]) -> None:
    lines, seconds = run(way, "gather_tasks.py")
    assert lines == [
        "Task 1 started",
        "Task 2 started",
        "Task 3 started",
        "Task 3 finished",
        "Task 1 finished",
        "Task 2 finished",
        "['Task 1 took 2 seconds', 'Task 2 took 3 seconds', 'Task 3 took 1 seconds']",
        "All tasks finished in 3 seconds",
    ]
    assert seconds >= 3


def test_blocking_call_in_thread_lets_the_loop_go_on(way: list[str]) -> None:
    lines, seconds = run(way, "blocking_call_in_thread.py")
    assert lines == [
        "Blocking call started",
        "Tick 1",
        "Tick 2",
        "Tick 3",
        "Blocking call finished",
        "Result of the blocking call",
    ]
    assert seconds >= 2


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("client_way", WAYS)
def test_echo_server_and_client(way: list[str], client_way: str, stop: signal.Signals) -> None:
    with start(way, "echo_server.py", "0") as server:
        assert server.stdout is not None
        port = server.stdout.readline().rpartition(":")[2].strip()
        lines, _ = run(WAYS[client_way], "echo_client.py", port, "one", "two")
        assert lines == ["Sent 'one', received 'one'", "Sent 'two', received 'two'"]
        told = [server.stdout.readline(), server.stdout.readline()]
        assert [re.sub(r"^127\.0\.0\.1:\d+ ", "", line).strip() for line in told] == ["connected", "disconnected"]
        server.send_signal(stop)
        assert output_of(server) == "Server stopped\n"


def test_fetch_many(way: list[str]) -> None:
    lines, _ = run(way, "fetch_many.py", "50")
    assert lines[0] == "Fetched 50 pages, the last one is 'page 49'"
    taken = re.fullmatch(r"One after another they would take 5 seconds; at once it took (\d+\.\d\d)", lines[1])
    assert taken is not None and 0.1 <= float(taken.group(1)) < 5


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A redis-server of the test's own, on a Unix socket."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed (package redis-server)")
    socket = tmp_path / "redis.sock"
    command = [program, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server, contextlib.ExitStack() as stack:
        stack.callback(server.terminate)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not socket.exists():
            assert server.poll() is None and time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.01)
        yield f"unix://{socket}"


def test_redis_client(way: list[str], redis_url: str) -> None:
    lines, _ = run(way, "redis_client.py", redis_url)
    assert lines == ["10 tasks counted to 1000", "Heard: all counted"]


def test_every_example_is_tested() -> None:
    tested = set(re.findall(r"\b\w+\.py\b", Path(__file__).read_text()))
    assert {path.name for path in EXAMPLES.glob("*.py")} <= tested
