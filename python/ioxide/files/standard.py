"""Synchronous files whose operations run on a thread: the standard streams, which are whatever `sys` has at the time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from ioxide._ioxide import _run_in_pool as run_in_pool

__all__ = ("SynchronousFile", "stderr", "stderr_bytes", "stdin", "stdin_bytes", "stdout", "stdout_bytes")

AT_ONCE = frozenset(
    {"buffer", "closed", "detach", "encoding", "errors", "fileno"}
    | {"line_buffering", "mode", "name", "newlines", "raw", "readable"}
)


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


stdin = SynchronousFile("stdin", lambda: sys.stdin)
stdout = SynchronousFile("stdout", lambda: sys.stdout)
stderr = SynchronousFile("stderr", lambda: sys.stderr)
stdin_bytes = SynchronousFile("stdin_bytes", lambda: sys.stdin.buffer)
stdout_bytes = SynchronousFile("stdout_bytes", lambda: sys.stdout.buffer)
stderr_bytes = SynchronousFile("stderr_bytes", lambda: sys.stderr.buffer)
