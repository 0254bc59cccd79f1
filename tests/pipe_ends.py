"""Pipes whose other end has no transport, for the tests of pipe transports."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest

from recorder import Recorder

BACKLOG = 1 << 20  # bytes, more than a pipe holds


async def read_pipe(protocol: Recorder, pipe: Any) -> Any:
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, pipe)
    return transport


async def write_pipe(protocol: Recorder, pipe: Any) -> Any:
    transport, _ = await asyncio.get_running_loop().connect_write_pipe(lambda: protocol, pipe)
    return transport


def ends() -> tuple[Any, Any]:
    """An unbuffered file object for each end of a new pipe."""
    reading, writing = os.pipe()
    return io.FileIO(reading, "rb"), io.FileIO(writing, "wb")


async def drain(reading: Any, count: int | None = None) -> bytes:
    """Reads so many bytes, or all up to the end, from a pipe without a transport."""
    data = b""
    os.set_blocking(reading.fileno(), False)
    async with asyncio.timeout(20):
        while count is None or len(data) < count:
            more = reading.read(1 << 16 if count is None else count - len(data))
            if more is None:
                await asyncio.sleep(0.001)
            elif not more:
                break
            else:
                data += more
    return data


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def debug_log(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    lines: list[str] = []
    with caplog.at_level(logging.DEBUG, "asyncio"):
        yield lines
    lines.extend(record.getMessage() for record in caplog.records)
