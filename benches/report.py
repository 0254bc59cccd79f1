"""Samples become figures: medians, spreads, ratios round by round, which goals are met.

What is sampled belongs to the workloads; how it looks on a page to pages.py and plots.py.

Invariants:
 1. Every sample stays in the results; each figure shown can be computed from them again.
 2. A ratio compares two runs of the same round; what is shown of it is the median of the rounds.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import machine

Result = dict[str, Any]


def spread(samples: Sequence[float]) -> float:
    """Half the distance between the quartiles, in percent of the median: a spike does not move it, real noise does."""
    if len(samples) < 2:
        return 0.0
    lower, _, upper = statistics.quantiles(samples, n=4, method="inclusive")
    median = statistics.median(samples)
    return 100 * (upper - lower) / 2 / abs(median) if median else 0.0


def paired_ratio(numerator: dict[Any, float], denominator: dict[Any, float]) -> float | None:
    """Median of the ratios round by round: both sides of each ratio met the same state of the machine."""
    rounds = [each for each in numerator.keys() & denominator.keys() if denominator[each]]
    if not rounds:
        return None
    return statistics.median(numerator[each] / denominator[each] for each in rounds)


def values(result: Result, case: str, contender: str, figure: str | None = None) -> dict[str, float]:
    """{round: value} of a figure, the main one if none is named."""
    runs = result["samples"].get(case, {}).get(contender, {})
    name = figure or result["figure"]
    return {number: figures[name] for number, figures in runs.items() if name in figures}


def median(result: Result, case: str, contender: str, figure: str | None = None) -> float | None:
    found = values(result, case, contender, figure)
    return statistics.median(found.values()) if found else None


def ratio(result: Result, case: str, contender: str, against: str) -> float | None:
    return paired_ratio(values(result, case, contender), values(result, case, against))


def judged(result: Result) -> list[tuple[dict[str, Any], float | None, bool | None]]:
    """Each goal, the ratio found, and whether it is met; None where one side took no part."""
    found = []
    for goal in result["goals"]:
        sides = [goal["subject"], goal["against"]] if goal["against"] else [goal["subject"]]
        took_part = all(side in result["contenders"] for side in sides)
        if goal["against"]:
            reached = ratio(result, goal["case"], goal["subject"], goal["against"])
        else:
            reached = median(result, goal["case"], goal["subject"])
        met = (reached is not None and reached <= goal["at_most"]) if took_part else None
        found.append((goal, reached, met))
    return found


def missed(results: dict[str, Any]) -> list[str]:
    lines = []
    for name, result in results["workloads"].items():
        for goal, reached, met in judged(result):
            if met is False:
                shown = "failed" if reached is None else f"{reached:.3g}"
                times = f" × {goal['against']}" if goal["against"] else f" {result['unit']}"
                lines.append(f"{name}, {goal['case']}: {goal['subject']} {shown}{times}, goal {goal['at_most']}")
        lines += [f"{name}: {where}: {reason}" for where, reason in result["failures"].items() if where.endswith("ioxide")]
    return lines


def behind(result: Result) -> list[tuple[str, str, float]]:
    """(case, peer, ratio) where ioxide costs more than a loop that is not ioxide."""
    rows = []
    for case in result["cases"]:
        for peer in result["contenders"]:
            if peer.startswith("ioxide") or peer not in ("asyncio", "uvloop", "rloop", "rsloop", "zuvloop", "uvloop+aiofastnet"):
                continue
            found = ratio(result, case, "ioxide", peer)
            if found is not None and found > 1:
                rows.append((case, peer, found))
    return rows


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, padded so that it reads well in a terminal too."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def render(line: Sequence[str]) -> str:
        columns = enumerate(zip(line, widths, strict=True))
        cells = [cell.rjust(width) if index else cell.ljust(width) for index, (cell, width) in columns]
        return "| " + " | ".join(cells) + " |"

    rule = "|" + "|".join("-" * (width + 1) + ("-" if not index else ":") for index, width in enumerate(widths)) + "|"
    return "\n".join([render(lines[0]), rule, *map(render, lines[1:])])


def heading(title: str, versions: dict[str, str]) -> None:
    print(f"# {title}\n")
    print("\n".join(machine.lines(machine.describe())))
    print("versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "\n", flush=True)
    if len(machine.CORES) == 1:
        print("caveat: only one core: the measured process shares it with its client\n", file=sys.stderr)
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"caveat: load average {load:.1f} at the start: something else runs here, trust ratios only\n", file=sys.stderr)


def write_json(path: str | None, results: dict[str, object]) -> None:
    if path is not None:
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"machine": machine.describe(), **results}, file, indent=1)
            file.write("\n")
