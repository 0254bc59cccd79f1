"""The table of tests that are left out or expected to fail, read from expected.toml.

Answers one question: what is expected of this test of this module, on this Python, loop and mode? Running tests
and judging their outcome is left to module.py and run.py.

X1. Every row has a reason; a row with an unknown key is an error, so that a typing mistake cannot hide a test.
X2. The first row that matches decides.
"""

from __future__ import annotations

import sys
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

TABLE = Path(__file__).with_name("expected.toml")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Row:
    """One row: which tests, where, what is expected of them and why."""

    module: str
    tests: tuple[str, ...]
    outcome: str
    reason: str
    pythons: tuple[str, ...] = ()
    loops: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()

    def applies(self, loop: str, mode: str) -> bool:
        """Whether the row speaks about this Python, loop and mode (an empty list means all of them)."""
        return (
            (not self.pythons or PYTHON in self.pythons)
            and (not self.loops or loop in self.loops)
            and (not self.modes or mode in self.modes)
        )

    def matches(self, module: str, test: str) -> bool:
        """Whether the row names this test (`Class.method`) of this module."""
        return self.module == module and any(fnmatchcase(test, pattern) for pattern in self.tests)


def _row(entry: dict[str, object]) -> Row:
    fields: dict[str, object] = dict(entry)
    for key in ("tests", "pythons", "loops", "modes"):
        value = fields.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError(f"expected.toml: {key} must be a list of strings in {entry}")
        fields[key] = tuple(value)
    row = Row(**fields)  # type: ignore[arg-type]  # X1: an unknown or missing key raises TypeError
    if row.outcome not in ("skip", "fail"):
        raise ValueError(f"expected.toml: outcome must be 'skip' or 'fail' in {entry}")
    if not row.reason.strip() or not row.tests:
        raise ValueError(f"expected.toml: tests and reason must not be empty in {entry}")
    return row


def load(loop: str, mode: str) -> list[Row]:
    """The rows that apply to this Python, loop and mode, in the order of the file."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return [row for row in map(_row, table["row"]) if row.applies(loop, mode)]


def find(rows: list[Row], module: str, test: str) -> Row | None:
    """The row that decides about a test (X2), or None when it must simply pass."""
    return next((row for row in rows if row.matches(module, test)), None)
