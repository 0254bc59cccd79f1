"""`ioxide.open`: from the arguments of the built-in `open` to an asynchronous file.

What it is: the checks, the descriptor and the layers that `open` makes, where only the descriptor may have to be waited for.
What it leaves to others: what the file does is `ioxide.file`.
"""

from __future__ import annotations

import asyncio
import codecs
import io
import os
import sys
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import lru_cache
from types import TracebackType
from typing import Any, Generic, TypeVar

from ioxide._ioxide import _due_to_yield as due_to_yield
from ioxide._ioxide import _open_raw as open_raw
from ioxide._ioxide import _RawFile as RawFile
from ioxide._ioxide import _run_in_pool as run_in_pool
from ioxide.binary_file import BinaryFile, buffer_size
from ioxide.file import NOTHING_LEFT, AsyncFile
from ioxide.text_file import TextFile

__all__ = ("Opening", "begin", "check_arguments", "dress", "open")

NAME_TYPES = (str, bytes, int)
Name = str | bytes | os.PathLike[str] | os.PathLike[bytes] | int
Opener = Callable[[Any, int], int]


class Mode:
    """What the letters of a mode mean."""

    # No NamedTuple: its attributes are properties, and an open reads ten of them.
    __slots__ = ("appending", "binary", "creating", "flags", "raw", "reading", "updating", "writing")

    def __init__(self, mode: str) -> None:
        self.binary = "b" in mode
        self.creating, self.reading, self.writing, self.appending = ("x" in mode, "r" in mode, "w" in mode, "a" in mode)
        self.updating = "+" in mode
        self.flags = os.O_CLOEXEC | (os.O_RDWR if self.updating else os.O_RDONLY if self.reading else os.O_WRONLY)
        if self.creating:
            self.flags |= os.O_EXCL | os.O_CREAT
        if self.writing:
            self.flags |= os.O_CREAT | os.O_TRUNC
        if self.appending:
            self.flags |= os.O_APPEND | os.O_CREAT
        self.raw = "".join(letter for letter in "xrwa+" if letter in mode)


@lru_cache(maxsize=64)
def _mode(mode: str) -> Mode:
    letters = set(mode)
    if letters - set("axrwb+t") or len(mode) > len(letters):
        raise ValueError(f"invalid mode: {mode!r}")
    parsed = Mode(mode)
    if "t" in mode and parsed.binary:
        raise ValueError("can't have text and binary mode at once")
    kinds = parsed.creating + parsed.reading + parsed.writing + parsed.appending
    if kinds > 1:
        raise ValueError("must have exactly one of create/read/write/append mode")
    if not kinds:
        raise ValueError("Must have exactly one of create/read/write/append mode and at most one plus")
    return parsed


Opened = TypeVar("Opened")


class Opening(Awaitable[Opened], Generic[Opened]):
    """What `open` returns: await it for the file, or enter it with `async with`, which closes the file at the end."""

    __slots__ = ("_coroutine", "_obj")

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self._obj: Any = None

    def __await__(self) -> Generator[Any, None, Opened]:
        if self._obj is None:
            self._obj = yield from self._coroutine.__await__()
        return self._obj  # type: ignore[no-any-return]

    def __aenter__(self) -> Awaitable[Any]:
        return self._enter()

    async def _enter(self) -> Any:
        opened: Any = await self
        # Entering a file gives the file; a temporary directory gives its name.
        return opened if isinstance(opened, AsyncFile) else await opened.__aenter__()

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Awaitable[None]:
        opened, self._obj = self._obj, None
        return NOTHING_LEFT if opened is None else opened.__aexit__(kind, error, traceback)


class FileOpening(Opening[AsyncFile]):
    """What `ioxide.open` returns: no more coroutines than the one that opens stand between it and the file."""

    __slots__ = ("_opened",)

    def __init__(self, opened: list[AsyncFile], coroutine: Coroutine[Any, Any, AsyncFile]) -> None:
        # The coroutine leaves the file in a list and not here: the two would keep each other alive.
        self._opened = opened
        self._coroutine = coroutine

    @property
    def _obj(self) -> AsyncFile | None:
        return self._opened[0] if self._opened else None

    def __await__(self) -> Generator[Any, None, AsyncFile]:
        if not self._opened:
            yield from self._coroutine.__await__()
        return self._opened[0]

    def __aenter__(self) -> Awaitable[Any]:
        return self._enter() if self._opened else self._coroutine

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Awaitable[None]:
        if not self._opened:
            return NOTHING_LEFT
        opened = self._opened.pop()
        return NOTHING_LEFT if opened._closed_at_once() else opened.close()


def open(
    file: Name,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Opener | None = None,
) -> Opening[AsyncFile]:
    """Open a file, as `open` does, for operations that are awaited.

    Takes the arguments of the built-in `open` and raises what it raises. Await the result, or use it with `async with`.
    An `opener` is called on a thread. Works on every asyncio event loop.
    """
    # Here, and not in the coroutine, so that the warning names the caller.
    encoding = encoding if "b" in mode else io.text_encoding(encoding)
    opened: list[AsyncFile] = []
    return FileOpening(opened, _open(opened, file, mode, buffering, encoding, errors, newline, closefd, opener))


async def _open(
    opened: list[AsyncFile],
    file: Name,
    mode: str,
    buffering: int,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
    closefd: bool,
    opener: Opener | None,
) -> AsyncFile:
    if not isinstance(file, NAME_TYPES):
        file = os.fspath(file)
    parsed = check_arguments(mode, buffering, encoding, errors, newline)
    if isinstance(file, int):
        raw = begin(file, file, parsed, closefd=closefd)
    elif not closefd:
        raise ValueError("Cannot use closefd=False with file name")
    else:
        sys.audit("open", file, parsed.raw, parsed.flags)
        if opener is not None:
            raw = await _open_by(opener, file, parsed)
        else:
            if due_to_yield():
                await asyncio.sleep(0)
            found = open_raw(file, parsed.raw, parsed.flags)
            raw = found if isinstance(found, RawFile) else begin(await found, file, parsed)
    try:
        opened.append(dress(raw, mode, parsed, buffering, encoding, errors, newline))
    except BaseException:
        raw.close()
        raise
    return opened[0]


async def _open_by(opener: Opener, name: Any, mode: Mode) -> RawFile:
    descriptor = await run_in_pool(opener, name, mode.flags)
    if not isinstance(descriptor, int):
        raise TypeError("expected integer from opener")
    if descriptor < 0:
        raise ValueError(f"opener returned {descriptor}")
    os.set_inheritable(descriptor, False)
    return begin(descriptor, name, mode)


def check_arguments(mode: str, buffering: int, encoding: str | None, errors: str | None, newline: str | None) -> Mode:
    """What the mode means. Fails: ValueError or LookupError where `open` raises it before it opens anything."""
    parsed = _mode(mode)
    if parsed.binary:
        if not encoding is errors is newline is None:
            for name, value in (("encoding", encoding), ("errors", errors), ("newline", newline)):
                if value is not None:
                    article = "a" if name == "newline" else "an"
                    raise ValueError(f"binary mode doesn't take {article} {name} argument")
        if buffering == 1:
            message = "line buffering (buffering=1) isn't supported in binary mode, the default buffer size will be used"
            warnings.warn(message, RuntimeWarning, stacklevel=4)
    elif buffering == 0:
        raise ValueError("can't have unbuffered text I/O")
    elif encoding is not None and encoding != "locale":
        codecs.lookup(encoding)
    return parsed


def begin(descriptor: int, name: Any, mode: Mode, *, closefd: bool = True) -> RawFile:
    """A raw file over a descriptor, which is closed if it cannot be one: it is a directory's, say."""
    try:
        raw = RawFile(descriptor, mode.raw, closefd)
    except OSError as error:
        if name is not descriptor:
            os.close(descriptor)
            error.filename = name
        raise
    raw.name = name
    raw._begin(mode.raw)
    return raw


def dress(
    raw: RawFile,
    mode: str,
    parsed: Mode,
    buffering: int,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
) -> AsyncFile:
    """The layers that `open` puts over a raw file."""
    if buffering == 0:
        return BinaryFile(raw, raw)
    if parsed.binary and parsed.reading and not parsed.updating:
        return BinaryFile(raw, None, buffering)
    line_buffering = False
    if not parsed.binary:
        line_buffering = buffering == 1 or (buffering < 0 and not raw.seekable() and raw.isatty())
    buffering = buffer_size(raw, -1 if line_buffering else buffering)
    if parsed.updating:
        layer: Any = io.BufferedRandom(raw, buffering)
    elif parsed.reading:
        layer = io.BufferedReader(raw, buffering)
    else:
        layer = io.BufferedWriter(raw, buffering)
    if parsed.binary:
        return BinaryFile(raw, layer)
    text = io.TextIOWrapper(layer, encoding, errors, newline, line_buffering)
    text.mode = mode  # type: ignore[misc]  # as `open` does
    return TextFile(raw, text, newline)
