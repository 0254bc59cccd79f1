"""The regression guard of benches/: what it reads out of callgrind's files, and when it complains."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHES = Path(__file__).parents[1] / "benches"


@pytest.fixture(autouse=True)
def benches_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCHES), *sys.path])


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
    import instructions

    assert instructions.own_instructions(PROFILE.splitlines()) == 40 + 20 + 7


def test_growth_beyond_the_tolerance_and_new_rows_are_told() -> None:
    import instructions

    before = {"a": 1000, "b": 1000, "c": 10}
    assert instructions.grown({"a": 1051, "b": 1052, "c": 11, "d": 1}, before) == ["b", "d"]
    assert instructions.compare({"b": 1052}, before) == 1
    assert instructions.compare({"a": 900}, before) == 0
