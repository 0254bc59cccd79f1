"""Results as pages: tables for a terminal, docs/benchmarks.md with its plots, and README's part of it.

usage: pages.py RESULTS.json       writes docs/benchmarks.md, docs/benchmarks/*.svg and README's part (make bench-page)

Figures are computed by report.py, plots drawn by plots.py.

Invariants:
 1. Nothing on a page was typed by hand: the same results give the same bytes.
 2. Rows that failed and loops that could not take part are named on the page, with the reason.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import machine
import plots
import report

NAMES = {
    "cpu_ns": "CPU ns",
    "wall_ns": "wall ns",
    "per_second": "a second",
    "p50_us": "p50 µs",
    "p99_us": "p99 µs",
    "p999_us": "p99.9 µs",
    "switches": "sleeps per request",
    "threads": "threads",
    "peak_kib": "peak KiB",
    "server_busy": "busy",
    "client_busy": "client busy",
    "wall_ms": "wall ms",
    "cpu_ms": "CPU ms",
    "lag_ms": "lag ms",
    "bytes": "bytes",
    "bytes_kept": "bytes kept",
    "bytes_after_use": "bytes after use",
    "wake_ups": "wake-ups",
    "idle_cpu_us": "CPU µs while idle",
    "grown_kib": "KiB grown",
    "objects": "objects",
    "descriptors": "descriptors",
    "objects_in_cycles": "objects in cycles",
}
# README's rows: workload, case, what a reader calls it.
SUMMARY = (
    ("tasks", "sleep(0) of 1000", "`sleep(0)` in 1,000 tasks"),
    ("tasks", "spawn+gather of 1000", "a task spawned and gathered"),
    ("tasks", "contended lock of 1000", "a lock that 1,000 tasks want"),
    ("tasks", "bounded queue", "an item through a bounded queue"),
    ("tcp", "protocol", "TCP echo, protocol"),
    ("streams", "streams readline", "TCP echo, streams and `readline`"),
    ("udp", "datagrams", "UDP echo"),
    ("tls", "16 KiB", "TLS echo, 16 KiB"),
    ("http", "uvicorn with httptools", "HTTP request, uvicorn"),
    ("http", "aiohttp server", "HTTP request, aiohttp"),
    ("http-clients", "aiohttp, 1,000 URLs", "aiohttp client, a URL"),
    ("postgres", "queries on 10 connections", "asyncpg query"),
    ("redis", "commands on 10 connections", "redis command"),
    ("subprocesses", "echo", "200 child processes, in all"),
)
MARKS = ("<!-- figures: begin, written by benches/bench.py -->", "<!-- figures: end -->")


def cell(result: dict[str, Any], case: str, contender: str, name: str | None = None) -> str:
    found = list(report.values(result, case, contender, name).values())
    if not found:
        return "failed" if f"{case} on {contender}" in result["failures"] or contender in result["failures"] else ""
    median = report.median(result, case, contender, name)
    assert median is not None
    figure = f"{median:,.0f}" if abs(median) >= 100 else f"{median:.3g}"
    return f"{figure} ±{report.spread(found):.0f}%" if len(found) > 1 and name is None else figure


def main_table(result: dict[str, Any]) -> str:
    header = ["", *result["contenders"]]
    return report.table(
        header, [[case, *[cell(result, case, name) for name in result["contenders"]]] for case in result["cases"]]
    )


def goal_table(result: dict[str, Any]) -> str:
    rows = []
    for goal, reached, met in report.judged(result):
        if met is not None:
            shown = "failed" if reached is None else f"{reached:.3g}"
            against = f"times {goal['against']}" if goal["against"] else result["unit"]
            rows.append(
                [goal["case"], goal["subject"], f"{shown} {against}", f"{goal['at_most']:g}", "met" if met else "**missed**"]
            )
    return report.table(["", "who", "reached", "at most", ""], rows) if rows else ""


def detail_table(result: dict[str, Any]) -> str:
    rows = []
    for case in result["cases"]:
        for contender in result["contenders"]:
            cells = [cell(result, case, contender, name) for name in result["details"]]
            if any(cells) and "failed" not in cells:
                rows.append([f"{case} · {contender}", *cells])
    return report.table(["", *[NAMES[name] for name in result["details"]]], rows) if rows and result["details"] else ""


def failures(result: dict[str, Any]) -> str:
    return "\n".join(f"- failed: {where}: {reason}" for where, reason in result["failures"].items())


def sentence(words: str) -> str:
    return words[0].upper() + words[1:]


def section(name: str, result: dict[str, Any], picture: str) -> str:
    parts = [f"## {name}", result["claim"], picture, sentence(f"{result['unit']}: median of {result['rounds']} rounds ±spread")]
    parts += [main_table(result), goal_table(result), detail_table(result), failures(result)]
    return "\n\n".join(part for part in parts if part)


def tables(results: dict[str, Any]) -> str:
    return "\n\n".join(section(name, result, "") for name, result in results["workloads"].items()) + "\n"


def steps(case: str) -> int:
    """The number in the name of a step of growth."""
    found = re.search(r"\d[\d,]*", case)
    if found is None:
        raise ValueError(f"no number in {case}")
    return int(found.group().replace(",", ""))


def plot(name: str, result: dict[str, Any]) -> str:
    title = f"{name}: {result['claim']}"
    if result["growth"]:
        found = {
            contender: {steps(case): report.median(result, case, contender) for case in result["cases"]}
            for contender in result["contenders"]
        }
        points = {who: {x: y for x, y in series.items() if y is not None} for who, series in found.items()}
        return plots.lines(title, result["unit"], {who: series for who, series in points.items() if series})
    cases = [case for case in result["cases"] if case in result["plotted"]] or result["cases"]
    base = result["baseline"] if result["baseline"] in result["contenders"] else ""
    names = [contender for contender in result["contenders"] if contender != base]
    if base:
        groups = {case: {name: report.ratio(result, case, name, base) for name in names} for case in cases}
        return plots.bars(title, f"{result['unit']}, relative to {base} (the line); less is better", groups, names, 1.0)
    medians = {case: {name: report.median(result, case, name) for name in names} for case in cases}
    return plots.bars(title, result["unit"], medians, names)


def facts(results: dict[str, Any]) -> str:
    lines = [
        f"`{results['command']}`",
        *machine.lines(results["machine"]),
        ", ".join(f"{name} {version}" for name, version in results["versions"].items()),
        *[f"not in it: {name}: {reason}" for name, reason in results["absent"].items()],
    ]
    return "\n".join(f"- {line}" for line in lines)


INTRODUCTION = """\
# Benchmarks

Written by the command below from what it measured; [benches/README.md](../benches/README.md) has the method and how to run it.
Figures are medians of interleaved rounds, each loop in a process of its own, and less is better unless a column says otherwise.
`ioxide` is what `ioxide run` gives; `ioxide loop` has asyncio's own Python functions above it (`accelerate=False`).
"""


def behind(results: dict[str, Any]) -> str:
    rows = [
        [name, case, peer, f"{ratio:.2f}"]
        for name, result in results["workloads"].items()
        for case, peer, ratio in report.behind(result)
    ]
    if not rows:
        return "## Where ioxide is behind another loop\n\nNowhere in this run."
    return "## Where ioxide is behind another loop\n\n" + report.table(["workload", "case", "loop", "times its cost"], rows)


def write(results: dict[str, Any], folder: Path) -> None:
    """benchmarks.md in the folder, its plots in benchmarks/ below it."""
    pictures = folder / "benchmarks"
    pictures.mkdir(parents=True, exist_ok=True)
    for old in pictures.glob("*.svg"):
        old.unlink()
    sections = []
    for name, result in results["workloads"].items():
        if not result["samples"]:
            sections.append(section(name, result, ""))
            continue
        (pictures / f"{name}.svg").write_text(plot(name, result), encoding="utf-8")
        sections.append(section(name, result, f"![{name}](benchmarks/{name}.svg)"))
    (pictures / "summary.svg").write_text(summary_plot(results), encoding="utf-8")
    page = "\n\n".join([INTRODUCTION + "\n" + facts(results), behind(results), *sections]) + "\n"
    (folder / "benchmarks.md").write_text(page, encoding="utf-8")


def summary_rows(results: dict[str, Any]) -> list[tuple[dict[str, Any], str, str]]:
    workloads = results["workloads"]
    return [
        (workloads[name], case, label)
        for name, case, label in SUMMARY
        if name in workloads and report.median(workloads[name], case, "ioxide") is not None
    ]


def summary_names(results: dict[str, Any]) -> list[str]:
    return [
        name
        for name in ("asyncio", "uvloop", "rloop", "rsloop", "zuvloop", "ioxide loop", "ioxide")
        if name in results["versions"]
    ]


def summary_plot(results: dict[str, Any]) -> str:
    names = [name for name in summary_names(results) if name in ("asyncio", "zuvloop", "ioxide loop", "ioxide")]
    groups = {
        label.replace("`", ""): {name: report.ratio(result, case, name, "uvloop") for name in names}
        for result, case, label in summary_rows(results)
    }
    return plots.bars(
        "CPU time relative to uvloop", "less is better; the line is uvloop; of child processes: time", groups, names, 1.0
    )


def summary_table(results: dict[str, Any]) -> str:
    names = summary_names(results)
    rows = []
    for result, case, label in summary_rows(results):
        cells = []
        for name in names:
            median = report.median(result, case, name)
            unit = 1000 if result["figure"] == "cpu_ns" else 1
            cells.append("–" if median is None else f"{median / unit:.3g}")
        rows.append([label if result["figure"] == "cpu_ns" else f"{label} (ms)", *cells])
    return report.table(["CPU µs per operation", *names], rows)


def write_readme(results: dict[str, Any], readme: Path) -> None:
    """Replaces what stands between the two marks."""
    before, rest = readme.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    where = "\n".join([f"{line}." for line in machine.lines(results["machine"])])
    part = "\n\n".join(
        [MARKS[0], "![CPU time relative to uvloop](docs/benchmarks/summary.svg)", summary_table(results), where, MARKS[1]]
    )
    readme.write_text(before + part + after, encoding="utf-8")


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    write(found, machine.HERE.parent / "docs")
    write_readme(found, machine.HERE.parent / "README.md")
