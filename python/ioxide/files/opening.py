"""`open` with aiofiles' arguments."""

from __future__ import annotations

from typing import Any

from ioxide.file import AsyncFile
from ioxide.opening import Opening
from ioxide.opening import open as _open

__all__ = ("open",)


def open(
    file: Any,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Any = None,
    *,
    loop: Any = None,
    executor: Any = None,
) -> Opening[AsyncFile]:
    """Open a file, as aiofiles.open. `loop` and `executor` change nothing."""
    return _open(file, mode, buffering, encoding, errors, newline, closefd, opener)
