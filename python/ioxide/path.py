"""`ioxide.Path`: pathlib's Path with awaited methods where a method asks the disk.

What it is: a PurePath, so everything that only handles names is pathlib's own.
What it leaves to others: how files are read and written is `ioxide.opening`; what runs on the pool, `ioxide.fs`.

Invariants
H1. A method takes the arguments, returns the results and raises the exceptions of pathlib's; paths in results are `Path`s.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial, wraps
from typing import Any, Self

from ioxide import fs, opening
from ioxide._ioxide import _due_to_yield as due_to_yield
from ioxide._ioxide import _run_in_pool as run_in_pool
from ioxide.file import AsyncFile

__all__ = ("Path",)


def _method(name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    """pathlib's method, on a thread of the pool."""

    @wraps(getattr(pathlib.Path, name))
    async def method(self: Path, *arguments: Any, **keywords: Any) -> Any:
        return self._own(await run_in_pool(partial(getattr(pathlib.Path(self), name), *arguments, **keywords)))

    return method


def _look(name: str, *, follows: bool = True) -> Callable[..., Coroutine[Any, Any, Any]]:
    """pathlib's method, at once where looking at the path waits for nothing."""

    @wraps(getattr(pathlib.Path, name))
    async def method(self: Path, *arguments: Any, **keywords: Any) -> Any:
        call = partial(getattr(pathlib.Path(self), name), *arguments, **keywords)
        follow = follows and keywords.get("follow_symlinks", True)
        if due_to_yield():
            await asyncio.sleep(0)
        return self._own(call() if fs.is_cached(self, follow=follow) else await run_in_pool(call))

    return method


class Path(pathlib.PurePosixPath):
    """A path in the file system. Methods that ask the disk are coroutines; those that yield are asynchronous iterators."""

    def _own(self, result: Any) -> Any:
        return type(self)(result) if isinstance(result, pathlib.Path) else result

    # Whole files.

    def open(
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> opening.Opening[AsyncFile]:
        """Open the file, as `ioxide.open`."""
        return opening.open(self, mode, buffering, encoding, errors, newline)

    async def read_bytes(self) -> bytes:
        """Return the whole content."""
        async with opening.open(self, "rb", 0) as opened:
            content: bytes = await opened.read()
            return content

    async def read_text(self, encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> str:
        """Return the whole content as text."""
        async with opening.open(self, "r", -1, encoding, errors, newline) as opened:
            content: str = await opened.read()
            return content

    async def write_bytes(self, data: Any, *, atomic: bool = False) -> int:
        """Replace the content; return its length.

        With `atomic`, others see the old content or the whole new one, never a part, even after a power failure.
        """
        view = memoryview(data)
        if atomic:
            return await run_in_pool(_replace, os.fspath(self), view)
        return await run_in_pool(pathlib.Path(self).write_bytes, view)

    async def write_text(
        self,
        data: str,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        *,
        atomic: bool = False,
    ) -> int:
        """Replace the content by text; return the number of characters. `atomic` as in `write_bytes`."""
        if not isinstance(data, str):
            raise TypeError(f"data must be str, not {type(data).__name__}")
        write = partial(pathlib.Path(self).write_text, data, encoding, errors, newline)
        if atomic:
            write = partial(_replace_text, os.fspath(self), data, encoding, errors, newline)
        return await run_in_pool(write)

    # What looks.

    stat = _look("stat")
    lstat = _look("lstat", follows=False)
    exists = _look("exists")
    is_file = _look("is_file")
    is_dir = _look("is_dir")
    is_symlink = _look("is_symlink", follows=False)
    is_block_device = _look("is_block_device")
    is_char_device = _look("is_char_device")
    is_fifo = _look("is_fifo")
    is_socket = _look("is_socket")
    readlink = _look("readlink", follows=False)
    is_mount = _method("is_mount")
    owner = _method("owner")
    group = _method("group")
    samefile = _method("samefile")
    resolve = _method("resolve")
    absolute = _method("absolute")
    expanduser = _method("expanduser")

    async def is_junction(self) -> bool:
        """Whether the path is a junction of Windows: never here."""
        return False

    # What changes.

    chmod = _method("chmod")
    lchmod = _method("lchmod")
    mkdir = _method("mkdir")
    rmdir = _method("rmdir")
    touch = _method("touch")
    unlink = _method("unlink")
    rename = _method("rename")
    replace = _method("replace")
    symlink_to = _method("symlink_to")
    hardlink_to = _method("hardlink_to")

    async def copy(self, target: Any, **keywords: Any) -> Self:
        """Copy the file or the directory tree to `target`; return the new path (pathlib's own from 3.14 on)."""
        return type(self)(await run_in_pool(partial(_copy, pathlib.Path(self), target, **keywords)))

    async def copy_into(self, target_dir: Any, **keywords: Any) -> Self:
        """Copy the file or the directory tree into a directory; return the new path."""
        return await self.copy(type(self)(target_dir) / self.name, **keywords)

    async def move(self, target: Any) -> Self:
        """Move the file or the directory tree to `target`, across file systems too; return the new path."""
        return type(self)(await run_in_pool(_move, pathlib.Path(self), target))

    async def move_into(self, target_dir: Any) -> Self:
        """Move the file or the directory tree into a directory; return the new path."""
        return await self.move(type(self)(target_dir) / self.name)

    # What yields.

    async def iterdir(self) -> AsyncIterator[Self]:
        """The paths in the directory."""
        async for path in fs.in_batches(await run_in_pool(_iterate_directory, pathlib.Path(self))):
            yield type(self)(path)

    async def glob(self, pattern: str, **keywords: Any) -> AsyncIterator[Self]:
        """The paths below this one that match the pattern."""
        async for path in fs.in_batches(iter(pathlib.Path(self).glob(pattern, **keywords))):
            yield type(self)(path)

    async def rglob(self, pattern: str, **keywords: Any) -> AsyncIterator[Self]:
        """The paths anywhere below this one that match the pattern."""
        async for path in fs.in_batches(iter(pathlib.Path(self).rglob(pattern, **keywords))):
            yield type(self)(path)

    async def walk(
        self, top_down: bool = True, on_error: Callable[[OSError], object] | None = None, follow_symlinks: bool = False
    ) -> AsyncIterator[tuple[Self, list[str], list[str]]]:
        """The directories below this one with the names in them, as `pathlib.Path.walk` of 3.12."""
        async for directory, directories, others in fs.walk(os.fspath(self), top_down, on_error, follow_symlinks):
            yield type(self)(directory), directories, others

    if sys.version_info >= (3, 13):

        @classmethod
        def from_uri(cls, uri: str) -> Self:
            """The path that a `file:` URI names. Fails with ValueError, as pathlib's. Python 3.13 and later."""
            return cls(pathlib.Path.from_uri(uri))

    @classmethod
    async def cwd(cls) -> Self:
        """The current directory."""
        return cls(await run_in_pool(os.getcwd))

    @classmethod
    async def home(cls) -> Self:
        """The user's home directory."""
        return cls(await run_in_pool(pathlib.Path.home))


def _iterate_directory(path: pathlib.Path) -> Any:
    # pathlib's iterdir() of 3.11 and 3.12 begins with the first item: errors belong to this call on all versions.
    return (path / name for name in os.listdir(path))


def _replace(path: str, data: memoryview) -> int:
    """Write a new file beside the old one, make it durable, and put it in the old one's place."""
    folder = os.path.dirname(path) or "."
    descriptor, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=folder)
    try:
        with os.fdopen(descriptor, "wb", 0) as opened:
            rest = data.cast("B")
            while rest:
                rest = rest[opened.write(rest) or 0 :]
            _take_mode_of(path, descriptor)
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)
    return data.nbytes


def _take_mode_of(path: str, descriptor: int) -> None:
    """The permissions of the file that is replaced, or those of a new one."""
    try:
        mode = os.stat(path).st_mode & 0o7777
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        mode = 0o666 & ~umask
    os.fchmod(descriptor, mode)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace_text(path: str, data: str, encoding: str | None, errors: str | None, newline: str | None) -> int:
    import io

    content = io.BytesIO()
    with io.TextIOWrapper(content, encoding, errors, newline) as text:
        written = text.write(data)
        text.flush()
        _replace(path, content.getbuffer())
    return written


def _copy(source: pathlib.Path, target: Any, **keywords: Any) -> Any:
    if hasattr(source, "copy"):
        return source.copy(pathlib.Path(target), **keywords)
    import shutil

    follow, preserve = keywords.pop("follow_symlinks", True), keywords.pop("preserve_metadata", False)
    if keywords:
        raise TypeError(f"copy() got an unexpected keyword argument {next(iter(keywords))!r}")
    if source.is_dir() and (follow or not source.is_symlink()):
        copy_file = shutil.copy2 if preserve else shutil.copyfile
        return shutil.copytree(source, target, symlinks=not follow, copy_function=copy_file)
    return (shutil.copy2 if preserve else shutil.copyfile)(source, target, follow_symlinks=follow)


def _move(source: pathlib.Path, target: Any) -> Any:
    if hasattr(source, "move"):
        return source.move(pathlib.Path(target))
    import shutil

    return shutil.move(source, target)
