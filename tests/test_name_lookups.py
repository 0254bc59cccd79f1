"""getaddrinfo and getnameinfo: the answers, exceptions and side effects of the socket module's functions, whoever asks."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ioxide

Run = Callable[..., Any]

QUESTIONS: list[tuple[Any, Any]] = [
    ("localhost", 80),
    ("localhost", b"80"),
    ("localhost", "http"),
    ("localhost", None),
    (b"localhost", "80"),
    ("localhost.", 80),
    (None, 80),
    (None, None),
    ("", 80),
    ("127.0.0.1", 80),
    ("::1", "80"),
    ("127.0.0.1", "http"),
    ("::1.2.3.4", "http"),
    ("::ffff:1.2.3.4", "http"),
    ("fe80::1%lo", "http"),
    ("127.0.0.1", "no such service"),
    ("name.invalid", 80),
    ("bücher.invalid", 80),
    ("a..b", 80),
    ("x" * 64, 80),
    ("local\0host", 80),
    ("localhost", "8\0"),
    ("localhost", -1),
    ("localhost", 99_999),
    ("localhost", 2**70),
    ("localhost", True),
    ("localhost", 80.0),
    ("\udcff", 80),
    ("localhost", "\udcff"),
    (bytearray(b"localhost"), 80),
    (80, "localhost"),
]
KEYWORDS: list[dict[str, Any]] = [
    {},
    {"type": socket.SOCK_STREAM},
    {"family": socket.AF_INET6, "type": 2},
    {"family": 99},
    {"family": 2**40},
    {"proto": "tcp"},
    {"flags": socket.AI_CANONNAME},
    {"flags": socket.AI_NUMERICHOST},
]


async def outcome(awaitable: Any) -> Any:
    try:
        return [(type(item[0]), type(item[1]), item) for item in await awaitable]
    except Exception as error:
        return type(error), error.args


@pytest.mark.parametrize("keywords", KEYWORDS, ids=repr)
def test_answers_and_exceptions(keywords: dict[str, Any]) -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        return [await outcome(loop.getaddrinfo(*question, **keywords)) for question in QUESTIONS]

    for question, theirs, ours in zip(QUESTIONS, asyncio.run(main()), ioxide.run(main()), strict=True):
        assert ours == theirs, question


def test_names_of_addresses(run: Run) -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
        addresses = [("127.0.0.1", 80), ("::1", 80, 0, 0)]
        answers: list[Any] = [await loop.getnameinfo(address, numeric) for address in addresses]
        for wrong in [("127.0.0.1",), ("name.invalid", 80), "name", ("127.0.0.1", 80, 2**40)]:
            try:
                await loop.getnameinfo(wrong)  # type: ignore[arg-type]
            except Exception as error:
                answers.append((type(error), error.args))
        return answers

    answers = run(main())
    assert answers[:2] == [("127.0.0.1", "80"), ("::1", "80")]
    assert answers == asyncio.run(main())


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_replaced_function_is_called(run: Run, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    asked: list[Any] = []

    def answer(*question: Any) -> list[str]:
        asked.append(question)
        return ["an answer"]

    async def main() -> Any:
        return await asyncio.get_running_loop().getaddrinfo(host, 80)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    assert run(main()) == ["an answer"]
    assert asked == [(host, 80, 0, 0, 0, 0)]


def test_a_replaced_function_below_is_called(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*question: Any) -> list[Any]:
        return [(2, 1, 6, "", question[:2])]

    async def main() -> Any:
        return await asyncio.get_running_loop().getaddrinfo("localhost", 80)

    monkeypatch.setattr("_socket.getaddrinfo", answer)
    assert run(main()) == [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("localhost", 80))]


def test_debug_mode_logs_look_ups(loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture) -> None:
    loop.set_debug(True)
    with caplog.at_level(logging.DEBUG, logger="asyncio"):
        for host in ("localhost", "127.0.0.1"):
            loop.run_until_complete(loop.getaddrinfo(host, 80, type=socket.SOCK_STREAM))
    said = [record.message for record in caplog.records if "address info" in record.message]
    kind = repr(socket.SOCK_STREAM)
    assert said[::2] == [f"Get address info {host}:80, type={kind}" for host in ("localhost", "127.0.0.1")]
    assert [text.partition(" took ")[0] for text in said[1::2]] == [
        f"Getting address info {host}:80, type={kind}" for host in ("localhost", "127.0.0.1")
    ]


AUDITED = """
import asyncio, sys, ioxide
heard = []
def hook(event, arguments):
    if event == "socket.getaddrinfo":
        heard.append(arguments)
        if arguments[0] == "forbidden":
            raise PermissionError("not that one")
sys.addaudithook(hook)
async def main():
    loop = asyncio.get_running_loop()
    await loop.getaddrinfo("localhost", 80, type=1)
    await loop.getaddrinfo("127.0.0.1", "80", family=2, proto=6)
    try:
        await loop.getaddrinfo("forbidden", 80)
    except PermissionError as error:
        heard.append(str(error))
asyncio.run(main())
theirs, heard[:] = heard[:], []
ioxide.run(main())
assert heard == theirs and len(heard) == 4, (heard, theirs)
"""


def test_audit_hooks_hear_of_look_ups() -> None:
    subprocess.run([sys.executable, "-c", AUDITED], check=True, timeout=60)


def test_many_at_once(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        answers = await asyncio.gather(*[loop.getaddrinfo("localhost", port) for port in range(200)])
        assert [{item[4][1] for item in answer} for answer in answers] == [{port} for port in range(200)]

    run(main())


def test_a_look_up_that_nobody_waits_for_any_more(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> None:
        looking = [asyncio.ensure_future(loop.getaddrinfo("localhost", port)) for port in range(20)]
        await asyncio.sleep(0)
        for task in looking[:10]:
            task.cancel()
        await asyncio.wait(looking[:10])
        assert all(task.cancelled() or task.result() for task in looking[:10])  # an answer may have come before
        assert all([await task for task in looking[10:]])

    loop.run_until_complete(main())


def test_a_loop_that_is_closed_during_look_ups() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        looking = [asyncio.ensure_future(loop.getaddrinfo("localhost", port)) for port in range(50)]
        await asyncio.wait(looking, timeout=0)

    for _ in range(5):
        ioxide.run(main())


def link_local() -> list[tuple[str, int]]:
    """Addresses of this machine that say nothing without their interface, and its number."""
    found = []
    for line in Path("/proc/net/if_inet6").read_text().splitlines():
        digits, interface, _, scope, *_ = line.split()
        if scope == "20":
            found.append((socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits)), int(interface, 16)))
    return found


@pytest.mark.skipif(not link_local(), reason="this machine has no link-local address")
def test_a_link_local_address_is_shown_without_its_interface(run: Run) -> None:
    host, interface = link_local()[0]

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as near, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as far:
            for end in (near, far):
                end.setblocking(False)
                end.bind((host, 0, 0, interface))
            await loop.sock_sendto(far, b"x", near.getsockname())
            assert await loop.sock_recvfrom(near, 1) == (b"x", far.getsockname())

    run(main())
