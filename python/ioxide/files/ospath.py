"""`aiofiles.ospath`: the functions of os.path as coroutine functions."""

from __future__ import annotations

import os.path as _path

from ioxide.files.wrapping import wrap

__all__ = (
    "abspath",
    "exists",
    "getatime",
    "getctime",
    "getmtime",
    "getsize",
    "isdir",
    "isfile",
    "islink",
    "ismount",
    "samefile",
    "sameopenfile",
)

abspath = wrap(_path.abspath)
exists = wrap(_path.exists)
getatime = wrap(_path.getatime)
getctime = wrap(_path.getctime)
getmtime = wrap(_path.getmtime)
getsize = wrap(_path.getsize)
isdir = wrap(_path.isdir)
isfile = wrap(_path.isfile)
islink = wrap(_path.islink)
ismount = wrap(_path.ismount)
samefile = wrap(_path.samefile)
sameopenfile = wrap(_path.sameopenfile)
