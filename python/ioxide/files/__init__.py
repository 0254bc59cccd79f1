"""`ioxide.files`: what aiofiles offers, under aiofiles' names: `from ioxide import files as aiofiles`.

What it is: the names and arguments of aiofiles over ioxide's own files. `loop` and `executor` arguments are taken and not needed:
files use ioxide's own pool, and the running loop.
What it leaves to others: everything that works is `ioxide.file`, `ioxide.fs` and `ioxide.tempfile`.
"""

from __future__ import annotations

from ioxide import tempfile as tempfile
from ioxide.files import os as os
from ioxide.files.opening import open as open
from ioxide.files.standard import stderr, stderr_bytes, stdin, stdin_bytes, stdout, stdout_bytes

__all__ = (
    "open",
    "stderr",
    "stderr_bytes",
    "stdin",
    "stdin_bytes",
    "stdout",
    "stdout_bytes",
    "tempfile",
)
