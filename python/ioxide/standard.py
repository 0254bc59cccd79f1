"""`ioxide.stdin`, `stdout` and `stderr`, as text and as bytes: the standard streams with awaited methods.

What it is: input is read when the kernel says that there is some, so that waiting for a line keeps no thread and holds up neither
other tasks nor the end of the program; output is written on a thread by whatever `sys` has at the time.
What it leaves to others: files are `ioxide.file`; pipes with protocols, `loop.connect_read_pipe`.

Invariants
D1. Bytes leave the kernel only for somebody who waits: a cancelled read loses none, and what it has read already is kept.
D2. One read at a time on a loop. The descriptor is a duplicate, so whoever else watches standard input is not in the way.
"""

from __future__ import annotations

import asyncio
import codecs
import io
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from ioxide._ioxide import _run_in_pool as run_in_pool

__all__ = ("StandardInput", "SynchronousFile", "stderr", "stderr_bytes", "stdin", "stdin_bytes", "stdout", "stdout_bytes")

AT_ONCE = frozenset(
    {"buffer", "closed", "detach", "encoding", "errors", "fileno"}
    | {"line_buffering", "mode", "name", "newlines", "raw", "readable"}
)
BYTES_AT_ONCE = 65536


class SynchronousFile:
    """A synchronous file whose operations are coroutines. What has begun goes on when it is cancelled: a line is read."""

    def __init__(self, name: str, current: Callable[[], Any]) -> None:
        self._name = name
        self._current = current

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._current(), name)
        if name in AT_ONCE or not callable(attribute):
            return attribute
        return partial(self._run, attribute)

    async def _run(self, operation: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        return await run_in_pool(partial(operation, *arguments, **keywords))

    def __aiter__(self) -> SynchronousFile:
        return self

    async def __anext__(self) -> Any:
        if line := await run_in_pool(self._current().readline):
            return line
        raise StopAsyncIteration

    async def __aenter__(self) -> SynchronousFile:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await run_in_pool(self._current().close)

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} {self._name}>"


class StandardInput:
    """Standard input. Past `sys.stdin`: what `input()` has buffered already is not seen, nor the other way round."""

    def __init__(self, name: str, *, binary: bool) -> None:
        self._name = name
        self._binary = binary
        self._decoder: Any = None
        self._ahead: Any = b"" if binary else ""
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    async def read(self, size: int | None = -1, /) -> Any:
        """Read at most `size` bytes or characters, fewer only at the end; everything up to the end without a size."""
        most = float("inf") if size is None or size < 0 else size
        async with self._turn():
            while len(self._ahead) < most and await self._fill():
                pass
            return self._take(min(len(self._ahead), most))

    async def readline(self) -> Any:
        """Read a line with its end; an empty one at the end of the input."""
        newline = b"\n" if self._binary else "\n"
        async with self._turn():
            searched = 0
            while (found := self._ahead.find(newline, searched)) < 0:
                searched = len(self._ahead)
                if not await self._fill():
                    return self._take(len(self._ahead))
            return self._take(found + 1)

    async def readlines(self) -> list[Any]:
        """Read the lines up to the end of the input."""
        return [line async for line in self]

    def __aiter__(self) -> StandardInput:
        return self

    async def __anext__(self) -> Any:
        if line := await self.readline():
            return line
        raise StopAsyncIteration

    def fileno(self) -> int:
        """The descriptor, that of `sys.stdin`."""
        return sys.stdin.fileno()

    def isatty(self) -> bool:
        """Whether somebody types it."""
        return sys.stdin.isatty()

    def _turn(self) -> asyncio.Lock:
        return self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())

    def _take(self, count: Any) -> Any:
        taken, self._ahead = self._ahead[:count], self._ahead[count:]
        return taken

    async def _fill(self) -> bool:
        """Read what there is, once there is something; False at the end of the input."""
        if not self._binary and self._decoder is None:
            decoder = codecs.getincrementaldecoder(sys.stdin.encoding)(sys.stdin.errors or "strict")
            self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
        descriptor = os.dup(sys.stdin.fileno())
        try:
            data = await self._read_when_ready(descriptor)
        finally:
            os.close(descriptor)
        self._ahead += data if self._binary else self._decoder.decode(data, final=not data)
        return bool(data)

    async def _read_when_ready(self, descriptor: int) -> bytes:
        loop = asyncio.get_running_loop()
        readable = loop.create_future()
        try:
            loop.add_reader(descriptor, _set, readable)
        except PermissionError:  # a regular file: epoll does not watch it, and it makes nobody wait for somebody else
            return os.read(descriptor, BYTES_AT_ONCE)
        try:
            await readable
        finally:
            loop.remove_reader(descriptor)
        return os.read(descriptor, BYTES_AT_ONCE)

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} {self._name}>"


def _set(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)


stdin = StandardInput("stdin", binary=False)
stdin_bytes = StandardInput("stdin_bytes", binary=True)
stdout = SynchronousFile("stdout", lambda: sys.stdout)
stderr = SynchronousFile("stderr", lambda: sys.stderr)
stdout_bytes = SynchronousFile("stdout_bytes", lambda: sys.stdout.buffer)
stderr_bytes = SynchronousFile("stderr_bytes", lambda: sys.stderr.buffer)
