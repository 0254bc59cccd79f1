"""Asynchronous files of text.

What it is: what a text file does otherwise than a binary one: its units, its line ends, and that its position cannot be computed.
What it leaves to others: waiting and turns are `ioxide.file`.
"""

from __future__ import annotations

import io
import os
from typing import Any

from ioxide._ioxide import _RawFile as RawFile
from ioxide.file import ALL, LINE, LINE_OR_RETURN, AsyncFile

__all__ = ("TextFile",)

# A character of any encoding of Python's has at most so many bytes.
BYTES_PER_CHARACTER = 4


class TextFile(AsyncFile):
    """A file of text. Line ends are translated as `newline` says, as in `open`."""

    _unit = BYTES_PER_CHARACTER

    def __init__(self, raw: RawFile, file: io.TextIOWrapper, newline: str | None) -> None:
        super().__init__(raw, file)
        self._line = LINE_OR_RETURN if newline in (None, "", "\r") else LINE

    # Text cannot be given back to Python's file, whose position in the middle of a chunk only a cookie could tell: what
    # iteration has read ahead is handed out first.

    async def read(self, size: int | None = -1, /) -> str:
        """Read at most `size` characters; all up to the end of the file without a size."""
        if not self._lines:
            text: str = await super().read(size)
            return text
        size = -1 if size is None else size
        return await self._operate(ALL if size < 0 else size * self._unit, self._read_behind_lines, size)

    def _read_behind_lines(self, size: int) -> str:
        taken: list[str] = []
        while self._lines and size != 0:
            line = self._lines.popleft()
            if 0 < size < len(line):
                self._lines.appendleft(line[size:])
                line = line[:size]
            taken.append(line)
            size = size - len(line) if size > 0 else size
        if size != 0:
            taken.append(self._file.read(size))
        return "".join(taken)

    async def readlines(self, hint: int | None = -1, /) -> list[str]:
        """Read the lines up to the end of the file, or until they have `hint` characters."""
        ahead: list[str] = []
        length, most = 0, hint if hint is not None and hint > 0 else float("inf")
        while self._lines and length < most:
            ahead.append(self._lines.popleft())
            length += len(ahead[-1])
        if length >= most:
            return ahead
        return ahead + await super().readlines(-1 if most == float("inf") else int(most) - length)

    async def readline(self, size: int | None = -1, /) -> str:
        """Read a line with its end; an empty one at the end of the file. TypeError for None, as in files of text."""
        if self._lines and size is not None and size >= 0:
            line: str = self._lines.popleft()
            if len(line) > size:
                self._lines.appendleft(line[size:])
            return line[:size]
        if self._lines and size is not None:
            return self._lines.popleft()  # type: ignore[no-any-return]
        text: str = await super().readline(size)
        return text

    def _tell(self) -> int:
        if self._lines:
            raise OSError("telling position disabled by next() call")
        return self._file.tell()  # type: ignore[no-any-return]

    async def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move the position to one that `tell` has returned, to the start or to the end; return the new one."""
        return await self._operate(None, self._seek, offset, whence)

    def _seek(self, offset: int, whence: int) -> int:
        self._lines.clear()
        self._iterating = False
        return self._file.seek(offset, whence)  # type: ignore[no-any-return]

    def _give_lines_back(self) -> None:
        """They stay, and are handed out first."""

    def _flush_buffer(self) -> None:
        # Not the text layer's flush(), which would enable tell() again; it sends its last few KiB by itself.
        self._file.buffer.flush()

    @property
    def buffer(self) -> Any:
        """The synchronous binary file under the text."""
        return self._file.buffer

    @property
    def encoding(self) -> str:
        """The name of the encoding."""
        return self._file.encoding  # type: ignore[no-any-return]

    @property
    def errors(self) -> str:
        """How encoding errors are handled."""
        return self._file.errors  # type: ignore[no-any-return]

    @property
    def newlines(self) -> Any:
        """The line ends seen so far."""
        return self._file.newlines

    @property
    def line_buffering(self) -> bool:
        """Whether each line is written at once."""
        return self._file.line_buffering  # type: ignore[no-any-return]
