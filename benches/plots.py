"""Plots as SVG, written by hand: bars of groups, and lines of growth.

No plotting library: two kinds of plots take a page of code, the files are small, can be compared line by line, follow a
reader's light or dark theme, and need nothing installed.

Invariants:
 1. The same figures give the same bytes.
 2. A figure that is missing leaves its place empty and says so; it is never drawn as zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

# contender -> colour; ioxide stands out, limits are grey.
COLOURS = {
    "asyncio": "#8d6e63",
    "uvloop": "#e0a020",
    "rloop": "#6a8fd8",
    "rsloop": "#4db6ac",
    "zuvloop": "#9575cd",
    "uvloop+aiofastnet": "#c0ca33",
    "ioxide loop polling": "#f2a59b",
    "ioxide loop": "#ef7a6a",
    "ioxide": "#d32f2f",
}
LIMIT_COLOUR = "#9e9e9e"
WIDTH, LABELS, RIGHT, BAR, GAP = 860, 230, 70, 13, 12
STYLE = (
    "<style>text{font:12px sans-serif;fill:#24292f}.title{font-size:14px;font-weight:bold}.small{font-size:10.5px}"
    ".axis{stroke:#8c959f;stroke-width:1}.grid{stroke:#8c959f;stroke-width:.4;stroke-dasharray:2 3}"
    "@media(prefers-color-scheme:dark){text{fill:#d0d7de}}</style>"
)


def colour(name: str) -> str:
    return COLOURS.get(name, LIMIT_COLOUR)


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    classes = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{classes}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def shown(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def legend(names: Sequence[str], y: float) -> list[str]:
    parts, x = [], 10.0
    for name in names:
        parts.append(f'<rect x="{x:.1f}" y="{y - 9:.1f}" width="10" height="10" fill="{colour(name)}"/>')
        parts.append(text(x + 14, y, name))
        x += 30 + 6.8 * len(name)
    return parts


def document(height: float, title: str, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
    return "\n".join([head, STYLE, text(10, 20, title, "title"), *parts, "</svg>"]) + "\n"


def steps_of(most: float) -> list[float]:
    """About five round numbers from zero past `most`."""
    rough = most / 5 or 1.0
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough)
    return [index * step for index in range(math.floor(most / step) + 1)]


def bars(
    title: str, subtitle: str, groups: Mapping[str, Mapping[str, float | None]], names: Sequence[str], marked: float | None = None
) -> str:
    """Groups of horizontal bars, a bar a name; `marked` is where a line stands, for ratios at 1."""
    found = [value for group in groups.values() for value in group.values() if value is not None]
    # What is far beyond the rest is cut off, and its figure tells.
    most = max(min(max(found, default=1.0), 2 * (marked or math.inf)), marked or 0.0) or 1.0
    scale = (WIDTH - LABELS - RIGHT) / most
    y = 64.0
    parts = [text(10, 37, subtitle, "small"), *legend(names, 54)]
    top = y
    for case, group in groups.items():
        y += GAP
        parts.append(text(LABELS - 8, y + BAR * len(names) / 2 + 4, case, anchor="end"))
        for name in names:
            value = group.get(name)
            if value is None:
                parts.append(text(LABELS + 4, y + BAR - 3, f"{name}: no figure", "small"))
            else:
                length = max(min(value, most), 0.0) * scale
                parts.append(f'<rect x="{LABELS}" y="{y:.1f}" width="{length:.1f}" height="{BAR - 2}" fill="{colour(name)}"/>')
                parts.append(text(LABELS + length + 4, y + BAR - 3, shown(value), "small"))
            y += BAR
    behind = [line(LABELS + step * scale, top, LABELS + step * scale, y + 6, "grid") for step in steps_of(most)]
    behind += [text(LABELS + step * scale, y + 18, shown(step), "small", "middle") for step in steps_of(most)]
    if marked is not None:
        behind.append(line(LABELS + marked * scale, top, LABELS + marked * scale, y + 6, "axis"))
    behind.append(line(LABELS, top, LABELS, y + 6, "axis"))
    return document(y + 28, title, [*behind, *parts])


def lines(title: str, subtitle: str, points: Mapping[str, Mapping[int, float]]) -> str:
    """A line a name over numbers that grow by factors; the height is linear and begins at zero: flat means flat."""
    height, left, right, top = 300.0, 70.0, 30.0, 70.0
    places = sorted({x for series in points.values() for x in series})
    most = max((y for series in points.values() for y in series.values()), default=1.0) or 1.0
    low, high = math.log10(places[0]), math.log10(places[-1])

    def at(x: int, y: float) -> tuple[float, float]:
        share = (math.log10(x) - low) / (high - low) if high > low else 0.5
        return left + share * (WIDTH - left - right), top + height * (1 - y / most)

    parts = [text(10, 37, subtitle, "small"), *legend(list(points), 54)]
    for step in steps_of(most):
        parts.append(line(left, at(places[0], step)[1], WIDTH - right, at(places[0], step)[1], "grid"))
        parts.append(text(left - 6, at(places[0], step)[1] + 4, shown(step), "small", "end"))
    for place in places:
        parts.append(text(at(place, 0)[0], top + height + 16, f"{place:,}", "small", "middle"))
    for name, series in points.items():
        where = [at(x, series[x]) for x in sorted(series)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in where)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour(name)}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour(name)}"/>' for x, y in where]
    parts.append(line(left, top + height, WIDTH - right, top + height, "axis"))
    return document(top + height + 28, title, parts)
