"""`ioxide.tempfile`: the four kinds of tempfile, asynchronous.

What it is: the arguments, names and clean-up of Python's tempfile; files are made and removed on a thread of the pool.
What it leaves to others: what an open file does is `ioxide.file`.

Invariants
T1. A file or directory is removed once, when it is closed or left, also by an exception or a cancellation.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import tempfile
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from ioxide import file, opening
from ioxide._ioxide import _run_in_pool as run_in_pool
from ioxide.binary_file import BinaryFile
from ioxide.text_file import TextFile

__all__ = ("NamedTemporaryFile", "SpooledTemporaryFile", "TemporaryDirectory", "TemporaryFile")

def TemporaryFile(
    mode: str = "w+b",
    buffering: int = -1,
    encoding: str | None = None,
    newline: str | None = None,
    suffix: str | None = None,
    prefix: str | None = None,
    dir: Any = None,
    *,
    errors: str | None = None,
) -> opening.Opening[file.AsyncFile]:
    """A file without a name, gone when it is closed. As tempfile.TemporaryFile."""
    return opening.Opening(_nameless(mode, buffering, encoding, newline, suffix, prefix, dir, errors))


async def _nameless(
    mode: str, buffering: int, encoding: str | None, newline: str | None, suffix: Any, prefix: Any, dir: Any, errors: Any
) -> file.AsyncFile:
    encoding = encoding if "b" in mode else io.text_encoding(encoding)
    parsed = opening.check_arguments(mode, buffering, encoding, errors, newline)
    descriptor = await _owned(run_in_pool(_make_nameless, suffix, prefix, dir))
    raw = opening.begin(descriptor, descriptor, parsed)
    return opening.dress(raw, mode, parsed, buffering, encoding, errors, newline)


def _make_nameless(suffix: Any, prefix: Any, dir: Any) -> int:
    """A descriptor of a file that tempfile has made; ours once its own file object has let go of it."""
    with tempfile.TemporaryFile("w+b", 0, None, None, suffix, prefix, dir) as made:
        return os.dup(made.fileno())


async def _owned(made: asyncio.Future[int]) -> int:
    """A descriptor from the pool. Cancelled meanwhile, it is closed when it comes (T1)."""
    try:
        return await asyncio.shield(made)
    except asyncio.CancelledError:
        made.add_done_callback(_close_descriptor)
        raise


def _close_descriptor(made: asyncio.Future[int]) -> None:
    if not made.cancelled() and made.exception() is None:
        os.close(made.result())


class _Named:
    """Adds to an open file that its name goes with it."""

    def __init__(self, opened: file.AsyncFile, name: Any, delete: bool, delete_on_close: bool) -> None:
        self.file = opened
        self.name = name
        self.delete = delete
        self._delete_on_close = delete_on_close

    async def close(self) -> None:
        """Close the file, and remove its name unless it is to be kept."""
        try:
            await self.file.close()
        finally:
            if self.delete and self._delete_on_close:
                await self._remove()

    async def _remove(self) -> None:
        if self.delete:
            self.delete = False
            await asyncio.shield(run_in_pool(_unlink, self.name))

    async def __aenter__(self) -> _Named:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.close()
        finally:
            await self._remove()

    def __aiter__(self) -> file.AsyncFile:
        return self.file.__aiter__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def _unlink(name: Any) -> None:
    with contextlib.suppress(FileNotFoundError):  # the program may have removed or renamed it
        os.unlink(name)


def NamedTemporaryFile(
    mode: str = "w+b",
    buffering: int = -1,
    encoding: str | None = None,
    newline: str | None = None,
    suffix: str | None = None,
    prefix: str | None = None,
    dir: Any = None,
    delete: bool = True,
    *,
    errors: str | None = None,
    delete_on_close: bool = True,
) -> opening.Opening[Any]:
    """A file with a name, removed when it is closed unless `delete` is false. As tempfile.NamedTemporaryFile of 3.12."""
    return opening.Opening(
        _named(mode, buffering, encoding, newline, suffix, prefix, dir, delete, errors, delete_on_close),
    )


async def _named(
    mode: str,
    buffering: int,
    encoding: str | None,
    newline: str | None,
    suffix: Any,
    prefix: Any,
    dir: Any,
    delete: bool,
    errors: Any,
    delete_on_close: bool,
) -> _Named:
    encoding = encoding if "b" in mode else io.text_encoding(encoding)
    parsed = opening.check_arguments(mode, buffering, encoding, errors, newline)
    made = run_in_pool(tempfile.mkstemp, suffix, prefix, dir)
    try:
        descriptor, name = await asyncio.shield(made)
    except asyncio.CancelledError:
        made.add_done_callback(_discard)
        raise
    raw = opening.begin(descriptor, name, parsed)
    opened = opening.dress(raw, mode, parsed, buffering, encoding, errors, newline)
    return _Named(opened, name, delete, delete_on_close)


def _discard(made: asyncio.Future[tuple[int, Any]]) -> None:
    if not made.cancelled() and made.exception() is None:
        descriptor, name = made.result()
        os.close(descriptor)
        _unlink(name)


class _Memory:
    """In place of a raw file where everything is in memory: always ready, nothing to send."""

    def _ready(self, _need: int) -> bool:
        return True

    def _at_hand(self, _need: int) -> bool:
        return True

    def _settle(self) -> None:
        return None

    def _writes_at_once(self) -> bool:
        return True

    def _lines(self, _need: int) -> int:
        return file.LINES_AT_MOST

    def seekable(self) -> bool:
        return True


class _Spooled:
    """A file in memory until it is larger than `max_size`, or until its descriptor is asked for."""

    def __init__(self, max_size: int, mode: str, make_file: Callable[[], Awaitable[file.AsyncFile]], memory: Any) -> None:
        self._max_size = max_size
        self._mode = mode
        self._make_file = make_file
        self._memory: Any = memory
        kind = BinaryFile if "b" in mode else _SpooledText
        self._file: file.AsyncFile = kind(_Memory(), memory)  # type: ignore[arg-type]
        self._rolled = False

    async def rollover(self) -> None:
        """Move the content to a real file."""
        if self._rolled:
            return
        self._rolled = True
        position, memory = self._memory.tell(), self._memory
        opened = await self._make_file()
        memory.seek(0)
        await opened.write(memory.read())
        # In memory a text's position counts characters; only a file's own tell() knows its own.
        if isinstance(opened, TextFile):
            await opened.flush()
            await opened.seek(0)
            await opened.read(position)
            await opened.seek(await opened.tell())
        else:
            await opened.seek(position)
        self._file = opened

    async def _check(self) -> None:
        if not self._rolled and self._max_size and self._memory.tell() > self._max_size:
            await self.rollover()

    async def write(self, data: Any, /) -> int:
        """Write all of `data`; return how many bytes or characters that was."""
        written = await self._file.write(data)
        await self._check()
        return written

    async def writelines(self, lines: Any, /) -> None:
        """Write each of the lines."""
        await self._file.writelines(lines)
        await self._check()

    async def truncate(self, size: int | None = None, /) -> int | None:
        """Change the length of the file."""
        if not self._rolled and size is not None and self._max_size and size > self._max_size:
            await self.rollover()
        if not self._rolled:
            return self._memory.truncate(size)  # type: ignore[no-any-return]
        return await self._file.truncate(size)

    async def fileno(self) -> int:
        """The descriptor of the real file, which is made if there is none yet."""
        await self.rollover()
        return self._file.fileno()

    async def close(self) -> None:
        """Close the file; its content is gone."""
        if self._rolled:
            await self._file.close()
        self._memory.close()

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._memory.closed  # type: ignore[no-any-return]

    @property
    def name(self) -> Any:
        """The name of the real file, None while there is none."""
        return self._file.name if self._rolled else None

    @property
    def mode(self) -> str:
        """The mode."""
        return self._mode

    async def __aenter__(self) -> _Spooled:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> file.AsyncFile:
        return self._file.__aiter__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _SpooledText(TextFile):
    """Text in memory has no newline argument to ask about."""

    def __init__(self, raw: Any, memory: Any) -> None:
        super().__init__(raw, memory, None)


def SpooledTemporaryFile(
    max_size: int = 0,
    mode: str = "w+b",
    buffering: int = -1,
    encoding: str | None = None,
    newline: str | None = None,
    suffix: str | None = None,
    prefix: str | None = None,
    dir: Any = None,
    *,
    errors: str | None = None,
) -> opening.Opening[_Spooled]:
    """A file in memory that moves to disk when it has more than `max_size` bytes (0: never). As tempfile's."""

    async def make() -> _Spooled:
        opening.check_arguments(mode, buffering, encoding, errors, newline)
        if "b" in mode:
            memory: Any = io.BytesIO()
        else:
            memory = io.TextIOWrapper(io.BytesIO(), io.text_encoding(encoding), errors, newline)
        return _Spooled(
            max_size,
            mode,
            lambda: TemporaryFile(mode, buffering, encoding, newline, suffix, prefix, dir, errors=errors),
            memory,
        )

    return opening.Opening(make())


class _Directory:
    """A directory that is removed with everything in it."""

    def __init__(self, directory: tempfile.TemporaryDirectory[str]) -> None:
        self._directory = directory

    @property
    def name(self) -> str:
        """The path of the directory."""
        return self._directory.name

    async def cleanup(self) -> None:
        """Remove the directory with everything in it."""
        await asyncio.shield(run_in_pool(self._directory.cleanup))

    close = cleanup

    async def __aenter__(self) -> str:
        return self.name

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.cleanup()


def TemporaryDirectory(
    suffix: str | None = None,
    prefix: str | None = None,
    dir: Any = None,
    ignore_cleanup_errors: bool = False,
    **keywords: Any,
) -> opening.Opening[_Directory]:
    """A directory that is removed with everything in it; `async with` gives its path. As tempfile.TemporaryDirectory."""

    async def make() -> _Directory:
        made = run_in_pool(lambda: tempfile.TemporaryDirectory(suffix, prefix, dir, ignore_cleanup_errors, **keywords))
        return _Directory(await asyncio.shield(made))

    return opening.Opening(make())
