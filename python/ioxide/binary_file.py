"""Asynchronous files of bytes.

What it is: what a file of bytes does otherwise than one of text: its buffer is made late, and iteration can be taken back.
What it leaves to others: waiting and turns are `ioxide.file`.

Invariants
B1. A file is bare until something asks for its buffer: nothing but the raw file has read or moved anything before.
"""

from __future__ import annotations

import io
import os
from typing import Any

from ioxide._ioxide import _RawFile as RawFile
from ioxide.file import ALL, LINES_AT_MOST, AsyncFile

__all__ = ("BinaryFile", "buffer_size")


def buffer_size(raw: RawFile, buffering: int) -> int:
    """What the argument of `open` means: a block of the file system where it is negative, and since 3.14 at least the default."""
    if buffering > 1:
        return buffering
    block = raw._blksize
    if buffering == 1 or block <= 1:
        return io.DEFAULT_BUFFER_SIZE
    return max(block, io.DEFAULT_BUFFER_SIZE) if io.DEFAULT_BUFFER_SIZE > 8192 else block


class _Buffer:
    """The buffer of a file of bytes, made when something asks for it: who reads a whole file needs none."""

    def __get__(self, file: BinaryFile, _owner: type) -> io.BufferedReader:
        raw = file._raw
        closed = raw.closed
        if closed:
            raw.readable = _yes  # type: ignore[method-assign]  # a closed file has its buffer too, and that says what is wrong
        buffered = file._file = io.BufferedReader(raw, buffer_size(raw, file._buffering))
        file._bare = False
        if closed:
            del raw.readable
        return buffered


def _yes() -> bool:
    return True


class BinaryFile(AsyncFile):
    """A file of bytes, buffered or (`buffering=0`) raw."""

    _file: Any = _Buffer()

    def __init__(self, raw: RawFile, file: Any, buffering: int = 0) -> None:
        if file is not None:
            super().__init__(raw, file)
            return
        self._raw = raw
        self._buffering = buffering
        self._bare = True

    def _read(self, size: int | None) -> Any:
        return self._raw.readall() if self._bare and (size is None or size < 0) else self._file.read(size)

    async def read1(self, size: int = -1, /) -> bytes:
        """Read at most `size` bytes with at most one call of the kernel."""
        return await self._operate(1, self._file.read1, size)

    async def readinto(self, buffer: Any, /) -> int:
        """Read into a writable bytes-like object; return how many bytes."""
        return await self._operate(memoryview(buffer).nbytes, self._file.readinto, buffer)

    async def readinto1(self, buffer: Any, /) -> int:
        """Read into a writable bytes-like object with at most one call of the kernel; return how many bytes."""
        return await self._operate(1, self._file.readinto1, buffer)

    async def readall(self) -> bytes:
        """Read everything up to the end of the file."""
        return await self._operate(ALL, self._file.read)

    async def peek(self, size: int = 0, /) -> bytes:
        """Return buffered bytes without moving the position."""
        return await self._operate(1, self._file.peek, size)

    @property
    def raw(self) -> RawFile:
        """The raw file under the buffer."""
        return self._raw

    def _lines_ahead(self) -> int:
        return LINES_AT_MOST if self._raw.seekable() else 1

    def _give_lines_back(self) -> None:
        if self._lines:
            read_ahead = sum(map(len, self._lines))
            self._lines.clear()
            self._file.seek(-read_ahead, os.SEEK_CUR)
        self._iterating = False
