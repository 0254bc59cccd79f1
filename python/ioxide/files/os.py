"""`aiofiles.os`: the functions of os as coroutine functions, and `wrap` to make more of them."""

from __future__ import annotations

import os as _os

from ioxide.files import ospath as path
from ioxide.files.wrapping import wrap

__all__ = (
    "access",
    "getcwd",
    "link",
    "listdir",
    "makedirs",
    "mkdir",
    "path",
    "readlink",
    "remove",
    "removedirs",
    "rename",
    "renames",
    "replace",
    "rmdir",
    "scandir",
    "sendfile",
    "stat",
    "statvfs",
    "symlink",
    "unlink",
    "wrap",
)

access = wrap(_os.access)
getcwd = wrap(_os.getcwd)
link = wrap(_os.link)
listdir = wrap(_os.listdir)
makedirs = wrap(_os.makedirs)
mkdir = wrap(_os.mkdir)
readlink = wrap(_os.readlink)
remove = wrap(_os.remove)
removedirs = wrap(_os.removedirs)
rename = wrap(_os.rename)
renames = wrap(_os.renames)
replace = wrap(_os.replace)
rmdir = wrap(_os.rmdir)
scandir = wrap(_os.scandir)
sendfile = wrap(_os.sendfile)
stat = wrap(_os.stat)
statvfs = wrap(_os.statvfs)
symlink = wrap(_os.symlink)
unlink = wrap(_os.unlink)
