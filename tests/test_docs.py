"""The pages of docs/ tell the truth: every Python block is a whole program and prints what the `text` block after it shows.

A program that blocks, hangs or prints something else fails here. Blocks in other languages are commands for a reader's shell.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATIENCE_SECONDS = 60


class Program(NamedTuple):
    page: str
    line: int
    source: str
    output: str


def programs(page: Path) -> list[Program]:
    """The Python blocks of a page, each with the text block that follows it."""
    text = page.read_text()
    blocks = [(match.group(1), match.group(2), text.count("\n", 0, match.start()) + 1) for match in FENCE.finditer(text)]
    found = []
    for number, (language, source, line) in enumerate(blocks):
        if language == "python":
            shown = blocks[number + 1] if number + 1 < len(blocks) else ("", "", 0)
            output = shown[1] if shown[0] == "text" else ""
            found.append(Program(str(page.relative_to(ROOT)), line, source, output))
    return found


PAGES = sorted((ROOT / "docs").rglob("*.md"))
PROGRAMS = [program for page in PAGES for program in programs(page)]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: f"{program.page}:{program.line}")
def test_program_of_a_page_prints_what_the_page_shows(program: Program, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(program.source)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    printed = done.stdout or done.stderr  # a page about logging shows what the logger wrote
    assert (done.returncode, printed) == (0, program.output), done.stderr


def test_there_are_pages_with_programs() -> None:
    assert {"docs/start.md", "docs/guides/blocking.md", "docs/guides/servers.md"} <= {program.page for program in PROGRAMS}


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing
