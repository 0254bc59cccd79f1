"""What callgrind counted: its files read, and two sets of figures compared. instructions.py decides what is counted."""

from __future__ import annotations

import re
from collections.abc import Iterable


def own_instructions(profile: Iterable[str], module: str) -> int:
    """The sum of what the functions of one shared library cost themselves, out of a file that callgrind has written."""
    objects: dict[str, str] = {}
    is_own = is_of_callee = False
    total = 0
    for line in profile:
        if found := re.match(r"ob=(\(\d+\))(?: (.*))?", line):
            name = objects.setdefault(found[1], found[2] or "")
            is_own = module in name
        elif found := re.match(r"cob=(\(\d+\)) (.*)", line):
            objects.setdefault(found[1], found[2])
        elif line.startswith("calls="):
            is_of_callee = True  # the next line has the cost of what was called
        elif re.match(r"[+\-*\d]", line):
            if is_own and not is_of_callee:
                total += int(line.split()[1])
            is_of_callee = False
    return total


def grown(now: dict[str, int], before: dict[str, int], tolerance: float) -> list[str]:
    """The rows that cost more than they may, and those without a figure."""
    return [row for row, cost in now.items() if row not in before or cost > before[row] * (1 + tolerance) + 1]
