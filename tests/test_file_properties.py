"""Random programs of file operations: `ioxide.open` and Python's own file have the same results, errors and bytes at the end.

Hypothesis makes the programs and shortens one that fails; the same ones in every run. It has no build for each Python that
ioxide has: there, the random operations of test_file.py are what compares.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from itertools import islice
from typing import Any

import pytest

import ioxide

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed for this Python: test_file.py compares there")
strategies = hypothesis.strategies

pytestmark = pytest.mark.usefixtures("files_backend")

NEWLINES = (None, "", "\n", "\r", "\r\n")
MODES = ("r", "r+", "w", "w+", "a", "a+", "x", "x+")
KEPT = "kept position"

sizes = strategies.one_of(strategies.none(), strategies.integers(-1, 300), strategies.sampled_from([4096, 9000, 100_000]))
texts = strategies.text(alphabet="ab\n\r é€\U0001f600", max_size=60)
long_texts = strategies.builds(lambda part, times: part * times, texts, strategies.sampled_from([1, 1, 1, 40, 400]))
operations = strategies.one_of(
    strategies.tuples(strategies.just("read"), strategies.tuples(sizes)),
    strategies.tuples(strategies.just("readline"), strategies.tuples(sizes)),
    strategies.tuples(strategies.just("readlines"), strategies.tuples(strategies.integers(-1, 500))),
    strategies.tuples(strategies.just("write"), strategies.tuples(long_texts)),
    strategies.tuples(strategies.just("writelines"), strategies.tuples(strategies.lists(texts, max_size=4))),
    strategies.tuples(strategies.just("seek"), strategies.tuples(strategies.sampled_from([0, KEPT]))),
    strategies.tuples(strategies.just("seek"), strategies.tuples(strategies.just(0), strategies.sampled_from([1, 2]))),
    strategies.tuples(strategies.just("truncate"), strategies.tuples(strategies.sampled_from([None, 0, 7, 5000]))),
    strategies.sampled_from([("tell", ()), ("flush", ()), ("iterate", (1,)), ("iterate", (3,))]),
)
programs = strategies.lists(operations, max_size=12)


def as_bytes(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


def arguments_of(arguments: tuple[Any, ...], position: int, *, binary: bool) -> tuple[Any, ...]:
    placed = [position if value is KEPT else value for value in arguments]
    if not binary:
        return tuple(placed)
    return tuple([as_bytes(item) for item in value] if isinstance(value, list) else as_bytes(value) for value in placed)


def shown(error: Exception) -> Any:
    return type(error), str(error), getattr(error, "errno", None)


def synchronous(path: str, mode: str, program: Any, keywords: dict[str, Any]) -> list[Any]:
    seen: list[Any] = []
    position = 0
    try:
        with open(path, mode, **keywords) as file:
            for name, given in program:
                arguments = arguments_of(given, position, binary="b" in mode)
                try:
                    if name == "iterate":
                        seen.append(list(islice(file, *arguments)))
                    else:
                        seen.append(getattr(file, name)(*arguments))
                        position = seen[-1] if name == "tell" else position
                except (OSError, ValueError, TypeError) as error:
                    seen.append(shown(error))
    except (OSError, ValueError) as error:
        seen.append(type(error))
    return seen


async def first_of(file: Any) -> AsyncIterator[Any]:
    async for line in file:
        yield line
        return


async def asynchronous(path: str, mode: str, program: Any, keywords: dict[str, Any]) -> list[Any]:
    seen: list[Any] = []
    position = 0
    try:
        async with ioxide.open(path, mode, **keywords) as file:
            for name, given in program:
                arguments = arguments_of(given, position, binary="b" in mode)
                try:
                    if name == "iterate":
                        seen.append([line for _ in range(*arguments) async for line in first_of(file)])
                    else:
                        seen.append(await getattr(file, name)(*arguments))
                        position = seen[-1] if name == "tell" else position
                except (OSError, ValueError, TypeError) as error:
                    seen.append(shown(error))
    except (OSError, ValueError) as error:
        seen.append(type(error))
    return seen


def compare(mode: str, content: bytes, program: Any, keywords: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("synchronous", "asynchronous")]
        if "x" not in mode:
            for path in paths:
                with open(path, "wb") as file:
                    file.write(content)
        expected = synchronous(paths[0], mode, program, keywords)
        with asyncio.Runner(loop_factory=ioxide.new_event_loop) as runner:
            actual = runner.run(asynchronous(paths[1], mode, program, keywords))
        assert actual == expected
        contents = []
        for path in paths:
            with open(path, "rb") as file:
                contents.append(file.read())
        assert contents[0] == contents[1]


settings = hypothesis.settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)


@settings
@hypothesis.given(
    strategies.sampled_from(MODES), long_texts, programs, strategies.sampled_from(NEWLINES), strategies.sampled_from([-1, 1, 16])
)
def test_text_with_each_newline_mode(mode: str, content: str, program: Any, newline: str | None, buffering: int) -> None:
    keywords = {"newline": newline, "encoding": "utf-8", "errors": "replace", "buffering": buffering}
    compare(mode, content.encode(), program, keywords)


@settings
@hypothesis.given(strategies.sampled_from(MODES), long_texts, programs, strategies.sampled_from([-1, 0, 16]))
def test_bytes(mode: str, content: str, program: Any, buffering: int) -> None:
    compare(mode + "b", content.encode(), program, {"buffering": buffering})
