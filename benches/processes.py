"""A measured process or its client, as the scripts see it: started on one core, spoken to line by line, ended.

What is said is the scripts' business.

Invariants:
 1. Only the process started here is ended, by its own handle, and nobody waits for it without a limit.
 2. When it dies or stays silent, Failed carries the last line of what it wrote to its standard error.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
import time
from types import TracebackType

import machine

PATIENCE_SECONDS = 60.0


class Failed(Exception):
    """A measured process did not do its work; the text says why. It becomes a line of the report."""


class Process:
    def __init__(self, name: str, core: int, command: list[str], environment: dict[str, str] | None = None) -> None:
        self.name = name
        # A file, not a pipe: a server that logs a lot must not block on what nobody reads yet.
        self.complaints = tempfile.TemporaryFile()  # noqa: SIM115, __exit__ closes it
        self.process = subprocess.Popen(
            machine.pinned(core, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.complaints, env=environment
        )
        self.id = self.process.pid
        self.heard = b""

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self.complaints):
            assert file is not None
            # What was said last may never have been read: hear() has reported that already.
            with contextlib.suppress(BrokenPipeError):
                file.close()

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failed(self.why_it_ended()) from None

    def hear(self, patience: float = PATIENCE_SECONDS) -> str:
        assert self.process.stdout is not None
        descriptor, deadline = self.process.stdout.fileno(), time.monotonic() + patience
        while b"\n" not in self.heard:
            if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise Failed(f"{self.name}: nothing said within {patience:.0f} s{self._last_complaint()}")
            data = os.read(descriptor, 65536)
            if not data:
                raise Failed(self.why_it_ended())
            self.heard += data
        line, self.heard = self.heard.split(b"\n", 1)
        return line.decode()

    def ask(self, line: str, patience: float = PATIENCE_SECONDS) -> str:
        self.say(line)
        return self.hear(patience)

    def ends_within(self, seconds: float) -> bool:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def why_it_ended(self) -> str:
        return f"{self.name}: ended with code {self.process.wait(PATIENCE_SECONDS)}{self._last_complaint()}"

    def _last_complaint(self) -> str:
        self.complaints.seek(0)
        lines = self.complaints.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""
