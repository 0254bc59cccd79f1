"""Samples become figures: minimum, median, spread, ratios, tables in Markdown, results as JSON.

What is sampled belongs to the scripts; what the machine is belongs to machine.py.

Invariants:
 1. Every sample is kept in the JSON file; a figure in a table can be computed again from it.
 2. A row that failed on a loop is shown as failed with its reason, never dropped.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Sequence

import machine


def spread(samples: Sequence[float]) -> float:
    """Half the distance between the quartiles, in percent of the median: a spike does not move it, real noise does."""
    if len(samples) < 2:
        return 0.0
    lower, _, upper = statistics.quantiles(samples, n=4, method="inclusive")
    median = statistics.median(samples)
    return 100 * (upper - lower) / 2 / median if median else 0.0


def paired_ratio(numerator: dict[int, float], denominator: dict[int, float]) -> float | None:
    """Median of the ratios round by round: both sides of each ratio met the same state of the machine."""
    rounds = numerator.keys() & denominator.keys()
    if not rounds:
        return None
    return statistics.median(numerator[each] / denominator[each] for each in rounds)


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
    facts = machine.describe()
    print(f"# {title}\n")
    print(f"{facts['processor']}, {facts['cores']} cores, Linux {facts['kernel']}, commit {facts['commit']}")
    print(f"Python {facts['python']}")
    print("loops: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "\n", flush=True)
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
