"""StreamReader beyond CPython's own tests: it agrees with asyncio's on every method, exception and what is left."""

from __future__ import annotations

import asyncio
import random
import sys
from typing import Any

import pytest

from sides import SIDES

PROGRAMS = 1500


class Transport(asyncio.Transport):
    """Notes when it is paused and resumed."""

    def __init__(self, *, can_pause: bool = True) -> None:
        super().__init__()
        self.can_pause = can_pause
        self.calls: list[str] = []

    def __repr__(self) -> str:
        return "<transport>"

    def pause_reading(self) -> None:
        if not self.can_pause:
            raise NotImplementedError
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")


def shown(outcome: Any) -> Any:
    """A result or an exception, with everything that asyncio puts into it."""
    if not isinstance(outcome, BaseException):
        return type(outcome).__name__, outcome
    context = None if outcome.__context__ is None else shown(outcome.__context__)
    return type(outcome).__name__, outcome.args, vars(outcome), context


def piece(rng: random.Random) -> bytes:
    return bytes(rng.choice(b"ab\n|;\r") for _ in range(rng.choice((0, 1, 1, 2, 3, 5, 9, 30))))


def separator(rng: random.Random) -> Any:
    one = rng.choice((b"\n", b"\n", b"ab", b"|;", b";\r\n", b"aba", b"", bytearray(b"b|"), memoryview(b"a;")))
    if sys.version_info >= (3, 13) and rng.random() < 0.3:
        return tuple(rng.choice((b"\n", b"ab", b"b", b"|;|", b"aba", b"")) for _ in range(rng.randrange(4)))
    return one


def read_call(rng: random.Random) -> tuple[str, tuple[Any, ...]]:
    name = rng.choice(("read", "read", "readline", "readline", "readexactly", "readuntil", "readuntil", "__anext__"))
    if name == "read":
        return name, rng.choice(((), (-1,), (0,), (1,), (2,), (7,), (1000,), (True,), (1 << 70,), (None,), (2.5,)))
    if name == "readexactly":
        return name, (rng.choice((-1, 0, 1, 2, 5, 20, 3.0, None)),)
    if name == "readuntil":
        return name, (separator(rng),)
    return name, ()


def feed(rng: random.Random, reader: Any, log: list[Any]) -> None:
    """One thing that happens to a reader from outside."""
    action = rng.choice(("data",) * 12 + ("kind", "eof", "exception", "buffer", "limit", "look", "odd"))
    try:
        if action == "data":
            reader.feed_data(piece(rng))
        elif action == "kind":
            reader.feed_data(rng.choice((bytearray, memoryview, list, tuple))(piece(rng)))
        elif action == "odd":
            reader.feed_data(rng.choice(("text", 5, [1, 300], [b"x"], None, 0.5)))
        elif action == "eof" and rng.random() < 0.3:
            reader.feed_eof()
        elif action == "exception" and rng.random() < 0.3:
            reader.set_exception(rng.choice((ValueError("bad"), ConnectionResetError("gone"), KeyError)))
        elif action == "buffer":
            change = rng.choice((lambda b: b.extend(b"x\n"), lambda b: b.clear(), lambda b: b.reverse()))
            change(reader._buffer)
        elif action == "limit":
            reader._limit = rng.choice((1, 4, 16))
        elif action == "look" and reader._waiter is None:  # which has an address in its repr
            log.append(repr(reader))
    except Exception as error:
        log.append((action, shown(error)))


async def program(reader_class: Any, seed: int) -> list[Any]:
    """Random calls and random feeding; what each came to, and what is left after it."""
    rng = random.Random(seed)
    loop = asyncio.get_running_loop()
    reader = reader_class(limit=rng.choice((1, 3, 8, 64, 65536)), loop=loop)
    transport = Transport(can_pause=rng.random() < 0.9)
    if rng.random() < 0.7:
        reader.set_transport(transport)
    looks = rng.random() < 0.5  # a look at the buffer changes what holds it
    log: list[Any] = []
    for _ in range(rng.randrange(1, 14)):
        for _ in range(rng.randrange(3)):
            feed(rng, reader, log)
        name, arguments = read_call(rng)
        tasks = [asyncio.ensure_future(getattr(reader, name)(*arguments))]
        if rng.random() < 0.1:
            tasks.append(asyncio.ensure_future(reader.readline()))
        for _ in range(6):
            await asyncio.sleep(0)
            if all(task.done() for task in tasks):
                break
            feed(rng, reader, log)
        for task in tasks:
            task.cancel("enough")
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            log.append((name, arguments if name != "readuntil" else len(arguments), shown(outcome)))
        log.append((reader.at_eof(), reader._paused, reader._waiter, shown(reader.exception()), transport.calls[:]))
        if looks:
            log.append((bytes(reader._buffer), reader._eof, reader._limit, repr(reader)))
    log.append(bytes(reader._buffer))
    return log


@pytest.mark.parametrize("name", [name for name in SIDES if name.startswith("ioxide")])
def test_random_programs_agree_with_asyncio(name: str) -> None:
    async def all_of_them(reader_class: Any) -> list[Any]:
        return [await program(reader_class, seed) for seed in range(PROGRAMS)]

    expected = SIDES["asyncio"].run(all_of_them(asyncio.StreamReader))
    found = SIDES[name].run(all_of_them(SIDES[name].StreamReader))
    for seed, (expected_log, found_log) in enumerate(zip(expected, found, strict=True)):
        for step, (wanted, got) in enumerate(zip(expected_log, found_log, strict=True)):
            assert got == wanted, f"seed {seed}, step {step}"
