"""`ioxide.fs`: the functions of os, os.path and shutil that ask the disk, as coroutine functions.

What it is: each runs as one whole operation on a thread of ioxide's pool; `stat`, `lstat`, `exists` and their kin run at
once where the kernel has the whole path in its cache. `walk` and `scandir` fetch many entries at a time.
What it leaves to others: open files are `ioxide.file`, paths as objects `ioxide.path`.

Invariants
S1. A function takes the arguments, returns the results and raises the exceptions of the one it is named after.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator
from functools import partial, wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

from ioxide._ioxide import _due_to_yield as due_to_yield
from ioxide._ioxide import _files_backend as files_backend
from ioxide._ioxide import _path_is_cached as path_is_cached
from ioxide._ioxide import _run_in_pool as run_in_pool

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
AnyPath = str | bytes | os.PathLike[Any]

# Entries that one trip to the pool brings back at most, and the seconds it takes at most.
ENTRIES_AT_ONCE = 1000
SECONDS_AT_ONCE = 0.01


def in_pool(function: Callable[Parameters, Result]) -> Callable[Parameters, Coroutine[Any, Any, Result]]:
    """A coroutine function that runs `function` on a thread of the pool."""

    @wraps(function)
    async def run(*arguments: Parameters.args, **keywords: Parameters.kwargs) -> Result:
        if keywords:
            return await run_in_pool(partial(function, *arguments, **keywords))
        return await run_in_pool(function, *arguments)

    return run


def at_once_if_cached(function: Callable[..., Result], *, follows: bool = True) -> Callable[..., Coroutine[Any, Any, Result]]:
    """As `in_pool`, but at once where looking at the path waits for nothing."""

    @wraps(function)
    async def run(*arguments: Any, **keywords: Any) -> Result:
        # Whatever the function calls its path. Without one, it says itself what is missing.
        path = arguments[0] if arguments else next(iter(keywords.values()), None)
        follow = follows and keywords.get("follow_symlinks", True)
        if due_to_yield():
            await asyncio.sleep(0)
        if keywords.get("dir_fd") is None and is_cached(path, follow=follow):
            return function(*arguments, **keywords)
        return await run_in_pool(partial(function, *arguments, **keywords))

    return run


def is_cached(path: Any, *, follow: bool = True) -> bool:
    """Whether looking at the path waits for no disk. A descriptor's file is always at hand."""
    if isinstance(path, int):
        return True
    try:
        return path_is_cached(os.fsencode(path), follow)
    except (TypeError, ValueError):
        return True  # no path: the function itself says what is wrong


def backend() -> str:
    """How files are worked on: `auto`, `inline`, `uring` or `threads`, from the environment variable IOXIDE_FILES.

    `threads` stands for `uring` too where the kernel, or a filter of system calls, forbids io_uring.
    """
    return files_backend()


stat = at_once_if_cached(os.stat)
lstat = at_once_if_cached(os.lstat, follows=False)
exists = at_once_if_cached(os.path.exists)
lexists = at_once_if_cached(os.path.lexists, follows=False)
isfile = at_once_if_cached(os.path.isfile)
isdir = at_once_if_cached(os.path.isdir)
islink = at_once_if_cached(os.path.islink, follows=False)
getsize = at_once_if_cached(os.path.getsize)
getmtime = at_once_if_cached(os.path.getmtime)
getatime = at_once_if_cached(os.path.getatime)
getctime = at_once_if_cached(os.path.getctime)
readlink = at_once_if_cached(os.readlink, follows=False)
access = at_once_if_cached(os.access)

abspath = in_pool(os.path.abspath)
chmod = in_pool(os.chmod)
chown = in_pool(os.chown)
copy_file_range = in_pool(os.copy_file_range)
fchmod = in_pool(os.fchmod)
fchown = in_pool(os.fchown)
fdatasync = in_pool(os.fdatasync)
fstat = in_pool(os.fstat)
fstatvfs = in_pool(os.fstatvfs)
fsync = in_pool(os.fsync)
ftruncate = in_pool(os.ftruncate)
getcwd = in_pool(os.getcwd)
getxattr = in_pool(os.getxattr)
ismount = in_pool(os.path.ismount)
lchown = in_pool(os.lchown)
link = in_pool(os.link)
listdir = in_pool(os.listdir)
listxattr = in_pool(os.listxattr)
makedirs = in_pool(os.makedirs)
mkdir = in_pool(os.mkdir)
mkfifo = in_pool(os.mkfifo)
mknod = in_pool(os.mknod)
pathconf = in_pool(os.pathconf)
posix_fadvise = in_pool(os.posix_fadvise)
posix_fallocate = in_pool(os.posix_fallocate)
realpath = in_pool(os.path.realpath)
remove = in_pool(os.remove)
removedirs = in_pool(os.removedirs)
removexattr = in_pool(os.removexattr)
rename = in_pool(os.rename)
renames = in_pool(os.renames)
replace = in_pool(os.replace)
rmdir = in_pool(os.rmdir)
samefile = in_pool(os.path.samefile)
sameopenfile = in_pool(os.path.sameopenfile)
sendfile = in_pool(os.sendfile)
setxattr = in_pool(os.setxattr)
splice = in_pool(os.splice)
statvfs = in_pool(os.statvfs)
symlink = in_pool(os.symlink)
sync = in_pool(os.sync)
truncate = in_pool(os.truncate)
unlink = in_pool(os.unlink)
utime = in_pool(os.utime)

copy = in_pool(shutil.copy)
copy2 = in_pool(shutil.copy2)
copyfile = in_pool(shutil.copyfile)
copymode = in_pool(shutil.copymode)
copystat = in_pool(shutil.copystat)
copytree = in_pool(shutil.copytree)
disk_usage = in_pool(shutil.disk_usage)
make_archive = in_pool(shutil.make_archive)
move = in_pool(shutil.move)
rmtree = in_pool(shutil.rmtree)
unpack_archive = in_pool(shutil.unpack_archive)
which = in_pool(shutil.which)


async def stat_many(paths: Iterable[AnyPath], *, follow_symlinks: bool = True) -> list[os.stat_result | OSError]:
    """The attributes of many files in one trip; an OSError stands where `stat` would have raised it."""
    return await run_in_pool(_stat_all, list(paths), follow_symlinks)


def _stat_all(paths: list[AnyPath], follow_symlinks: bool) -> list[os.stat_result | OSError]:
    found: list[os.stat_result | OSError] = []
    for path in paths:
        try:
            found.append(os.stat(path, follow_symlinks=follow_symlinks))
        except OSError as error:
            found.append(error)
    return found


async def scandir(path: Any = ".") -> AsyncIterator[os.DirEntry[Any]]:
    """The entries of a directory, in the order of `os.scandir`."""
    entries = _entries(path)
    try:
        async for entry in in_batches(entries):
            yield entry
    finally:
        with contextlib.suppress(ValueError):  # a thread is at it, for somebody who waits no more; it closes them
            entries.close()


def _entries(path: Any) -> Generator[os.DirEntry[Any]]:
    with os.scandir(path) as entries:
        yield from entries


class _Batch(NamedTuple):
    """What a thread has taken from an iterator, and how it ended if it did."""

    items: list[Any]
    ended: bool
    error: BaseException | None


async def in_batches(items: Iterator[Result]) -> AsyncIterator[Result]:
    """What an iterator that blocks yields, many at a time."""
    ended = False
    while not ended:
        batch, ended, error = await run_in_pool(_take, items)
        for item in batch:
            yield item
        if error is not None:
            raise error


def _take(items: Iterator[Result]) -> _Batch:
    """Some items, as many as there are in a few milliseconds; at least one unless there are no more."""
    until = time.monotonic() + SECONDS_AT_ONCE
    taken: list[Result] = []
    try:
        for item in items:
            taken.append(item)
            if len(taken) >= ENTRIES_AT_ONCE or (len(taken) % 32 == 0 and time.monotonic() > until):
                return _Batch(taken, False, None)
    except Exception as error:
        return _Batch(taken, True, error)  # what came before it is handed out before it
    return _Batch(taken, True, None)


Listing = tuple[list[Any], list[Any]]


async def walk(
    top: Any, topdown: bool = True, onerror: Callable[[OSError], object] | None = None, followlinks: bool = False
) -> AsyncIterator[tuple[Any, list[Any], list[Any]]]:
    """Directories with their names of directories and of other entries, as `os.walk`.

    With `topdown`, directories removed from the list are not entered, as with `os.walk`; they may have been listed already.
    """
    top = os.fspath(top)
    if not topdown:
        async for visited in in_batches(_walk_upwards(top, followlinks)):
            if not isinstance(visited, OSError):
                yield visited
            elif onerror is not None:
                onerror(visited)
        return
    listed: dict[Any, Listing | OSError] = {}
    ahead = [top]
    while ahead:
        directory = ahead.pop()
        if directory not in listed:
            listed = await run_in_pool(_list_ahead, directory, ahead[::-1], followlinks)
        listing = listed.pop(directory)
        if isinstance(listing, OSError):
            if onerror is not None:
                onerror(listing)
            continue
        directories, others = listing
        yield directory, directories, others
        ahead.extend(reversed(await _to_enter(directory, directories, followlinks)))


def _walk_upwards(top: Any, followlinks: bool) -> Iterator[tuple[Any, list[Any], list[Any]] | OSError]:
    """Errors come in their order with what is visited: the caller's function is for the caller's thread."""
    errors: list[OSError] = []
    for visited in os.walk(top, False, errors.append, followlinks):
        yield from errors
        errors.clear()
        yield visited
    yield from errors


async def _to_enter(directory: Any, names: list[Any], followlinks: bool) -> list[Any]:
    paths = [os.path.join(directory, name) for name in names]
    if followlinks:
        return paths
    # As os.walk: asked again, because the caller may have changed the names, or the files.
    return [path for path in paths if not await islink(path)]


def _list_ahead(first: Any, others: list[Any], followlinks: bool) -> dict[Any, Listing | OSError]:
    """Lists a directory, and for a few milliseconds the ones that a walk comes to afterwards."""
    until = time.monotonic() + SECONDS_AT_ONCE
    listed: dict[Any, Listing | OSError] = {}
    pending = [*reversed(others), first]
    entries = 0
    while pending and (not listed or (entries < ENTRIES_AT_ONCE and time.monotonic() < until)):
        directory = pending.pop()
        try:
            directories, files, enter = _list(directory, followlinks)
        except OSError as error:
            listed[directory] = error
            continue
        listed[directory] = (directories, files)
        entries += len(directories) + len(files) + 1
        pending.extend(reversed(enter))
    return listed


def _list(directory: Any, followlinks: bool) -> tuple[list[Any], list[Any], list[Any]]:
    directories: list[Any] = []
    others: list[Any] = []
    enter: list[Any] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                is_directory = entry.is_dir()
            except OSError:
                is_directory = False
            (directories if is_directory else others).append(entry.name)
            if is_directory and (followlinks or not entry.is_symlink()):
                enter.append(os.path.join(directory, entry.name))
    return directories, others, enter
