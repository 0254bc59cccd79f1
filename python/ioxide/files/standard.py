"""aiofiles' standard streams: whatever `sys` has at the time, on a thread. `ioxide.stdin` needs none."""

from __future__ import annotations

import sys

from ioxide.standard import SynchronousFile, stderr, stderr_bytes, stdout, stdout_bytes

__all__ = ("SynchronousFile", "stderr", "stderr_bytes", "stdin", "stdin_bytes", "stdout", "stdout_bytes")

stdin = SynchronousFile("stdin", lambda: sys.stdin)
stdin_bytes = SynchronousFile("stdin_bytes", lambda: sys.stdin.buffer)
