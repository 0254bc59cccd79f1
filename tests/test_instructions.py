"""The regression guard of benches/: what it reads out of callgrind's files, and when it complains."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType


def load(name: str) -> ModuleType:
    """A module of benches/, whose other modules have names that modules of tests/ have, too."""
    specification = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "benches" / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


callgrind = load("callgrind")

PROFILE = """\
version: 1
events: Ir

ob=(1) /lib/libpython3.13.so
fl=(1) ???
fn=(1) evaluate
0 1000
cob=(2) /site/ioxide/_ioxide.cpython-313.so
cfn=(2) step
calls=3 0
0 70

ob=(2)
fn=(2)
10 40
+2 20
cob=(1)
cfn=(1)
calls=1 0
+1 500
* 7
totals: 1567
"""


def test_only_the_own_cost_of_the_own_module_counts() -> None:
    assert callgrind.own_instructions(PROFILE.splitlines(), "_ioxide.") == 40 + 20 + 7


def test_growth_beyond_the_tolerance_and_new_rows_are_told() -> None:
    before = {"a": 1000, "b": 1000, "c": 10}
    now = {"a": 1051, "b": 1052, "c": 11, "d": 1}
    assert callgrind.grown(now, before, 0.05) == ["b", "d"]
    assert callgrind.grown({"a": 900}, before, 0.05) == []
