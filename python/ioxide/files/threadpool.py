"""`aiofiles.threadpool`: `open` under its other name, and `wrap` for a synchronous file that is open already."""

from __future__ import annotations

import io
from typing import Any

from ioxide.files.opening import open as open
from ioxide.files.standard import SynchronousFile, stderr, stderr_bytes, stdin, stdin_bytes, stdout, stdout_bytes

__all__ = ("open", "stderr", "stderr_bytes", "stdin", "stdin_bytes", "stdout", "stdout_bytes", "wrap")


def wrap(file: Any, *, loop: Any = None, executor: Any = None) -> SynchronousFile:
    """A synchronous file with coroutines for operations, each of them on a thread.

    Raises TypeError for what is no file. `loop` and `executor` change nothing.
    """
    if not isinstance(file, io.IOBase):
        raise TypeError(f"Unsupported io type: {file}.")
    return SynchronousFile(repr(file), lambda: file)
