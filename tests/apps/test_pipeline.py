"""Pipelines of child processes that move 100 MB each, checked by their hash."""

from __future__ import annotations

from collections.abc import Callable

PACKAGES: list[str] = []


def test_a_pipeline_of_children(same_on_both: Callable[..., list[str]]) -> None:
    assert same_on_both("pipeline.py") == [
        "by_streams True",
        "from_child_to_child True",
        "by_communicate True",
        "by_protocol True",
        "four at once True",
        "tasks left 0",
        "descriptors left 0",
    ]
