"""Files whose methods are awaited and do not block the loop.

What it is: Python's own buffered and text files over a raw file that is filled before an operation and emptied after it, so
what an operation does is what it always does, and only where it waits differs.
What it leaves to others: opening is `ioxide.opening`, bytes `ioxide.binary_file`, text `ioxide.text_file`, reading
without waiting `ioxide._ioxide`.

Invariants
O1. One operation at a time: `_busy` is true from its start until nothing of it is under way, in the kernel or on the pool.
O2. A cancelled operation returns at once; what it has started ends before the next one begins, and a write ends whole.
O3. `_lines` are lines that Python's file has read and the caller has not; every operation but iteration gives them back first.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Self, TypeVar

from ioxide._ioxide import _due_to_yield as due_to_yield
from ioxide._ioxide import _RawFile as RawFile
from ioxide._ioxide import _run_in_pool as run_in_pool

__all__ = ("AsyncFile",)

Result = TypeVar("Result")
Descriptor = int

# What `RawFile._ready` is asked for, besides a number of bytes.
ALL, LINE, LINE_OR_RETURN = -1, -2, -3
# Stands for an empty queue until there is something to put into one; nobody changes it.
NOTHING: deque[Any] = deque(maxlen=0)
# Iteration reads so many lines at a time.
LINES_AT_MOST = 512


class _NothingLeft(Awaitable[None]):
    """What is awaited where everything has been done: a coroutine would cost as much as the rest."""

    def __await__(self) -> Any:
        return EXHAUSTED


EXHAUSTED: Iterator[Any] = iter(())
NOTHING_LEFT = _NothingLeft()


class AsyncFile:
    """A file whose operations are coroutines. Made by `ioxide.open`; not thread-safe, as nothing of asyncio's is.

    Operations that overlap, from several tasks, run one after the other in the order in which they were called.
    Cancelling one returns at once; a write that has begun is still written as a whole.
    Errors are those of the same operation on a synchronous file, with the same errno.
    """

    _unit = 1  # bytes that one unit of `read(size)` may take
    _line = LINE

    # What a file begins with, here and not in `__init__`: many are read or written once and closed.

    # Whether `_file` would be a buffer over `_raw`, and has not been made.
    _bare = False
    _busy = False
    _dirty = False
    _iterating = False
    _waiting: deque[asyncio.Future[None]] = NOTHING
    _lines: deque[Any] = NOTHING

    def __init__(self, raw: RawFile, file: Any) -> None:
        self._raw = raw
        self._file = file

    # One operation at a time (O1).

    async def _enter_in_turn(self) -> None:
        """Wait until nothing is under way any more; who leaves hands the file over."""
        turn = asyncio.get_running_loop().create_future()
        self._queue().append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()
            raise

    def _queue(self) -> deque[asyncio.Future[None]]:
        if self._waiting is NOTHING:
            self._waiting = deque()
        return self._waiting

    def _leave(self) -> None:
        self._busy = False
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                self._busy = True
                turn.set_result(None)
                return

    async def _wait(self, under_way: asyncio.Future[Any]) -> None:
        """Wait for work that goes on if the waiting is cancelled; then the turn ends when the work does (O2)."""
        # asyncio.shield() in short: it would cost as much as the rest of a small read.
        ended = asyncio.get_running_loop().create_future()
        under_way.add_done_callback(partial(_tell, ended))
        try:
            await ended
        except asyncio.CancelledError:
            if not under_way.done():
                raise _UnderWayError(under_way) from None
            under_way.exception()  # nobody else will ask for it
            raise
        under_way.result()

    async def _operate(self, need: int | None, operation: Callable[..., Result], *arguments: Any) -> Result:
        """Run a method of the synchronous file when what it needs is at hand; then send what it has written."""
        # As in `_turn`, which would cost as much again as the rest of an operation in memory.
        if self._busy:
            await self._enter_in_turn()
        self._busy = True
        under_way = None
        try:
            if due_to_yield():
                await asyncio.sleep(0)
            if self._iterating:
                self._give_lines_back()
            if need is not None:
                if self._dirty:
                    await self._flush()
                if not self._raw._ready(need):
                    await self._wait(self._raw._fetch(need))
            result = operation(*arguments)
            if self._dirty:
                await self._settled()
            return result
        except _UnderWayError as cancelled:
            under_way = cancelled.future
            raise asyncio.CancelledError from None
        finally:
            self._leave_after(under_way)

    def _leave_after(self, under_way: asyncio.Future[None] | None) -> None:
        if under_way is not None:
            under_way.add_done_callback(self._forget)
        elif self._waiting:
            self._leave()
        else:
            self._busy = False

    def _forget(self, ended: asyncio.Future[None]) -> None:
        if not ended.cancelled():
            ended.exception()  # what could not be written is kept, and the next flush says why
        self._leave()

    async def _flush(self) -> None:
        """Send what the buffer has taken, before an operation that would wait for that in the middle."""
        self._flush_buffer()
        await self._settled()
        self._dirty = False

    async def _settled(self) -> None:
        """What the synchronous file has written is the kernel's."""
        settling = self._raw._settle()
        if settling is not None:
            await self._wait(settling)

    def _flush_buffer(self) -> None:
        self._file.flush()

    async def _in_pool(self, operation: Callable[..., Result], *arguments: Any) -> Result:
        """Run a method of the synchronous file that may wait for long and is rare."""
        async with self._turn():
            self._give_lines_back()
            await self._flush_if_writable()
            running = run_in_pool(operation, *arguments)
            await self._wait(running)
            return running.result()

    async def _flush_if_writable(self) -> None:
        if not self._file.closed and self._dirty:
            await self._flush()

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._busy:
            await self._enter_in_turn()
        self._busy = True
        under_way = None
        try:
            yield
        except _UnderWayError as cancelled:
            under_way = cancelled.future
            raise asyncio.CancelledError from None
        finally:
            self._leave_after(under_way)

    # Reading.

    async def read(self, size: int | None = -1, /) -> Any:
        """Read at most `size` bytes or characters; all up to the end of the file without a size."""
        need = ALL if size is None or size < 0 else size * self._unit
        # Nothing is suspended below, so that nobody else can begin meanwhile: no turn is needed (O1).
        if self._busy or self._dirty or self._iterating or not self._raw._at_hand(need):
            return await self._operate(need, self._read, size)
        return self._read(size)

    def _read(self, size: int | None) -> Any:
        return self._file.read(size)

    async def readline(self, size: int | None = -1, /) -> Any:
        """Read a line with its end; an empty one at the end of the file."""
        if self._iterating and self._lines and size is not None and size < 0 and not self._busy:
            return self._lines.popleft()
        return await self._operate(self._line, self._file.readline, size)

    async def readlines(self, hint: int | None = -1, /) -> list[Any]:
        """Read the lines up to the end of the file, or until they have `hint` bytes or characters."""
        return await self._operate(ALL, self._file.readlines, -1 if hint is None else hint)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        lines = self._lines
        if lines and not self._busy:
            return lines.popleft()
        return await self._next_line()

    async def _next_line(self) -> Any:
        async with self._turn():
            if not self._lines:
                await self._read_lines()
            self._iterating = bool(self._lines)
            line = self._lines.popleft() if self._lines else None
        if line is None:
            raise StopAsyncIteration
        return line

    async def _read_lines(self) -> None:
        if due_to_yield():
            await asyncio.sleep(0)
        if self._dirty:
            await self._flush()
        raw = self._raw
        if not raw._ready(self._line):
            await self._wait(raw._fetch(self._line))
        ahead = islice(self._file, min(max(raw._lines(self._line), 1), self._lines_ahead()))
        if self._lines is NOTHING:
            self._lines = deque(ahead)
        else:
            self._lines.extend(ahead)

    def _lines_ahead(self) -> int:
        return LINES_AT_MOST

    def _give_lines_back(self) -> None:
        """What iteration has read ahead is read again by the next operation (O3)."""
        raise NotImplementedError

    # Writing.

    async def write(self, data: Any, /) -> int:
        """Write all of `data`, and return how many bytes or characters that was."""
        self._dirty = True
        # As in `read`, up to the bytes that leave the buffer.
        if self._busy or self._iterating or not self._raw._at_hand(0):
            return await self._operate(None, self._file.write, data)
        written: int = self._file.write(data)
        settling = self._raw._settle()
        if settling is not None:
            async with self._turn():
                await self._wait(settling)
        return written

    async def writelines(self, lines: Iterable[Any], /) -> None:
        """Write each of the lines; no line ends are added."""
        self._dirty = True
        await self._operate(None, self._file.writelines, lines)

    async def flush(self) -> None:
        """Hand what is buffered to the kernel. Only `sync` makes it survive a power failure."""
        await self._operate(None, self._file.flush)
        self._dirty = False

    async def sync(self, *, data_only: bool = False) -> None:
        """Wait until what was written, and the file's attributes unless `data_only`, are on the disk."""
        await self._operate(None, self._file.flush)
        await self._raw._sync(data_only)

    async def truncate(self, size: int | None = None, /) -> int:
        """Change the length of the file to `size` bytes, its position unless given; return the new length."""
        return await self._in_pool(self._file.truncate, size)

    # The position.

    async def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move the position; return the new one."""
        result: int = await self._operate(None, self._file.seek, offset, whence)
        self._iterating = False
        return result

    async def tell(self) -> int:
        """Return the position."""
        position: int = await self._operate(None, self._tell)
        return position

    def _tell(self) -> int:
        return self._file.tell()  # type: ignore[no-any-return]

    # Positional, and so safe from several tasks at once.

    async def pread(self, size: int, offset: int, /) -> bytes:
        """Read at most `size` bytes at `offset`, past buffers and encoding, without moving the position."""
        if due_to_yield():
            await asyncio.sleep(0)
        data = self._raw._pread_now(size, offset)
        return data if data is not None else await self._raw._pread(size, offset)

    async def pwrite(self, data: Any, offset: int, /) -> int:
        """Write all of `data` at `offset`, past buffers and encoding, without moving the position."""
        return await asyncio.shield(self._raw._pwrite(data, offset))

    # The end.

    async def close(self) -> None:
        """Write what is buffered and close the file. Closing a closed file does nothing."""
        if self._closed_at_once():
            return
        if self._busy:
            try:
                await self._enter_in_turn()
            except asyncio.CancelledError:
                self._queue().appendleft(self._closing_turn())
                raise
        self._busy = True
        under_way = None
        try:
            with contextlib.suppress(OSError):  # close() tries again, and says what is wrong
                await self._flush_if_writable()
        except _UnderWayError as cancelled:
            under_way = cancelled.future
            raise asyncio.CancelledError from None
        finally:
            if under_way is None:
                try:
                    self._file.close()
                finally:
                    self._leave()
            else:
                self._queue().appendleft(self._closing_turn())
                under_way.add_done_callback(self._forget)

    def _closed_at_once(self) -> bool:
        """Whether the file is closed; it is closed here if nothing has to be waited for."""
        if self._busy or (self._dirty and not self._raw._writes_at_once()):
            return self.closed
        (self._raw if self._bare else self._file).close()
        return True

    def _layer(self) -> Any:
        """The outermost layer that there is."""
        return self._raw if self._bare else self._file

    def _closing_turn(self) -> asyncio.Future[None]:
        """A turn that closes the file when it comes: a close() that was cancelled still closes."""
        turn = asyncio.get_running_loop().create_future()
        turn.add_done_callback(self._close_in_turn)
        return turn

    def _close_in_turn(self, _turn: asyncio.Future[None]) -> None:
        try:
            self._file.close()
        finally:
            self._leave()

    async def __aenter__(self) -> Self:
        return self

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Awaitable[None]:
        return NOTHING_LEFT if self._closed_at_once() else self.close()

    # What asks nothing of the disk.

    async def isatty(self) -> bool:
        """Whether the file is a terminal."""
        return self._file.isatty()  # type: ignore[no-any-return]

    async def seekable(self) -> bool:
        """Whether the position can be moved."""
        return self._file.seekable()  # type: ignore[no-any-return]

    async def writable(self) -> bool:
        """Whether the file was opened for writing."""
        return self._file.writable()  # type: ignore[no-any-return]

    def readable(self) -> bool:
        """Whether the file was opened for reading."""
        return self._file.readable()  # type: ignore[no-any-return]

    def fileno(self) -> Descriptor:
        """The descriptor; it belongs to the file."""
        return self._file.fileno()  # type: ignore[no-any-return]

    def detach(self) -> Any:
        """Separate the layer below from the file, which is unusable afterwards; return the synchronous object."""
        return self._file.detach()

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._layer().closed  # type: ignore[no-any-return]

    @property
    def name(self) -> Any:
        """What was given to `open`."""
        return self._file.name

    @property
    def mode(self) -> str:
        """The mode, as the synchronous file tells it."""
        return self._file.mode  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} over {self._file!r}>"


def _tell(ended: asyncio.Future[None], _under_way: asyncio.Future[Any]) -> None:
    if not ended.done():
        ended.set_result(None)


class _UnderWayError(BaseException):
    """A cancelled operation has left this work behind."""

    def __init__(self, future: asyncio.Future[Any]) -> None:
        super().__init__()
        self.future = future
