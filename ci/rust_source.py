"""Reads Rust source as far as the house rules need it: no comments, no strings, the extent of each function.

What it leaves to others: what is a violation (layers.py). It is no parser: it knows tokens and braces, which is enough
for code that rustfmt has formatted.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_INVISIBLE = re.compile(
    r"""
      //[^\n]*                              # comment to the end of the line
    | /\*.*?\*/                             # block comment
    | b?c?r(?P<hashes>\#*)".*?"(?P=hashes)  # raw string
    | [bc]?"(?:\\.|[^"\\])*"                # string
    | b?'(?:\\(?:x..|u\{[^}]*\}|.)|[^'\\])' # character; a lifetime has no second quote
    """,
    re.DOTALL | re.VERBOSE,
)
_FUNCTION = re.compile(r"\bfn\s+(\w+)")


class Function(NamedTuple):
    """A function with a body: its name and how many lines it takes from `fn` to its closing brace."""

    name: str
    lines: int


def code_only(source: str) -> str:
    """The source with comments and strings blanked out; every line keeps its number."""
    return _INVISIBLE.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), source)


def without_tests(source: str) -> str:
    """The source up to its `#[cfg(test)]` module, which stands at the end of a file."""
    return re.split(r"^#\[cfg\(test\)\]\s*\nmod ", source, maxsplit=1, flags=re.MULTILINE)[0]


def functions(source: str) -> list[Function]:
    code = code_only(source)
    found = []
    for match in _FUNCTION.finditer(code):
        end = _end_of_body(code, match.end())
        if end is not None:
            found.append(Function(match.group(1), code.count("\n", match.start(), end) + 1))
    return found


def _end_of_body(code: str, start: int) -> int | None:
    """Where the body that follows a signature ends; None for a declaration without one."""
    depth = 0
    for match in re.finditer(r"[{};()\[\]]", code[start:]):
        token = match.group()
        if token == ";" and depth == 0:
            return None
        depth += (token in "{([") - (token in "})]")
        if token == "}" and depth == 0:
            return start + match.end()
    return None
