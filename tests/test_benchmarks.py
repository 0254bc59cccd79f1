"""The benchmark suite of benches/: every workload is complete and works, and figures become pages. Nothing here looks at a clock.

The programs are run as their users run them, in processes of their own: their modules have names that modules of tests/ have.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

BENCHES = Path(__file__).resolve().parents[1] / "benches"
PATIENCE_SECONDS = 240


def python(program: str, *arguments: str) -> str:
    """What a program prints that can import the modules of benches/."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(BENCHES)!r})\n{program}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(path: Path, only: str, *more: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCHES / "bench.py"), "--tiny", "--json", str(path), "--only", only]
    command += ["--contenders", "asyncio,ioxide", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(path.read_text()))


def test_every_workload_is_complete() -> None:
    program = """
import loops
import pages
from registry import WORKLOADS
assert len({workload.name for workload in WORKLOADS}) == len(WORKLOADS)
for workload in WORKLOADS:
    assert workload.claim.endswith(".") and workload.cases and callable(workload.session), workload.name
    assert set(workload.contenders) <= set(loops.CONTENDERS), workload.name
    assert loops.SUBJECT in (*workload.contenders, *workload.limits), workload.name
    everybody = {*workload.contenders, *workload.limits, ""}
    assert workload.baseline in everybody, workload.name
    assert set(workload.short or ()) | set(workload.plotted) <= set(workload.cases), workload.name
    assert set(workload.details) <= set(pages.NAMES), workload.name
    for goal in workload.goals:
        assert {goal.against, goal.subject} <= everybody and set(goal.cases or ()) <= set(workload.cases), (workload.name, goal)
known = {(workload.name, case) for workload in WORKLOADS for case in workload.cases}
assert {(name, case) for name, case, _ in pages.SUMMARY} <= known
"""
    python(program)


# What each workload needs besides Python.
NEEDS = {
    "tasks": [],
    "tcp": ["cc"],
    "streams": ["cc"],
    "udp": ["cc"],
    "unix": ["cc"],
    "tls": ["cc", "openssl"],
    "websockets": ["cc"],
    "names": [],
    "redis": ["redis-server"],
    "subprocesses": [],
    "startup": [],
    "sendfile": [],
    "many-tasks": [],
}


def has_openssl_headers() -> bool:
    source = b"#include <openssl/ssl.h>\n"
    return subprocess.run(["cc", "-E", "-"], input=source, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("name", NEEDS)
def test_workload_works(name: str, tmp_path: Path) -> None:
    """A round of next to nothing: figures for each case of asyncio and ioxide, and no failure."""
    for program in NEEDS[name]:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if name == "tls" and not has_openssl_headers():
        pytest.skip("the headers of OpenSSL are not installed")
    cases = ["--cases", "100,sleep(0) of one task"] if name in ("tasks", "many-tasks") else []
    results = run(tmp_path / "results.json", name, *cases)
    if name in results["absent"]:
        pytest.skip(results["absent"][name])
    result = results["workloads"][name]
    assert result["failures"] == {}
    for case in result["cases"]:
        for contender in ("asyncio", "ioxide"):
            figures = result["samples"][case][contender]["0"]
            assert all(isinstance(value, int | float) for value in figures.values()) and result["figure"] in figures


def test_a_run_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    first = run(path, "names,startup")
    del first["workloads"]["startup"]
    path.write_text(json.dumps({**first, "is_finished": False}))
    second = run(path, "names,startup")
    assert second["workloads"]["names"] == first["workloads"]["names"] and second["workloads"]["startup"]["rounds"] == 1
    # A run that is finished is no beginning of another.
    assert run(path, "names,startup")["workloads"]["names"] != first["workloads"]["names"]


def result(samples: dict[str, dict[str, list[float]]], **more: Any) -> dict[str, Any]:
    return {
        "claim": "Nothing is dearer.", "figure": "cpu_ns", "unit": "CPU nanoseconds", "baseline": "uvloop", "growth": False,
        "plotted": list(samples), "details": ["threads"], "contenders": ["uvloop", "ioxide"], "cases": list(samples), "rounds": 3,
        "goals": [{"case": case, "subject": "ioxide", "against": "uvloop", "at_most": 0.5} for case in samples],
        "failures": {"late on uvloop": "it has no such thing"},
        "samples": {
            case: {
                name: {str(number): {"cpu_ns": value, "threads": 1} for number, value in enumerate(found)}
                for name, found in by.items()
            }
            for case, by in samples.items()
        },
        **more,
    }


RESULTS = {
    "machine": {
        "processor": "a <processor>", "cores": 2, "kernel": "6", "python": "3.13", "openssl": "OpenSSL 3", "commit": "abc",
        "load_average": 0.0, "date": "2026-01-01T00:00:00Z",
    },
    "command": "benches/bench.py", "versions": {"uvloop": "1", "ioxide": "2"}, "absent": {"rloop": "it is not here"},
    "workloads": {
        "tasks": result({
            "sleep(0) of 1000": {"uvloop": [1000, 1100, 900], "ioxide": [300, 330, 450]},
            "late": {"ioxide": [5, 5, 5]},
        }),
        "many-tasks": result(
            {f"{count:,} tasks": {"uvloop": [10, 10, 10], "ioxide": [20, 21, 22]} for count in (100, 1000)}, growth=True
        ),
    },
}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    marked = "before\n<!-- figures: begin, written by benches/bench.py -->\nold\n<!-- figures: end -->\nafter\n"
    (tmp_path / "README.md").write_text(marked)
    program = """
import json, pages
from pathlib import Path
folder = Path(sys.argv[1])
results = json.loads((folder / "results.json").read_text())
pages.write(results, folder)
pages.write_readme(results, folder / "README.md")
"""
    python(program, str(tmp_path))
    return tmp_path


def test_page_shows_medians_ratios_goals_and_failures(written: Path) -> None:
    page = " ".join((written / "benchmarks.md").read_text().split())
    assert "| sleep(0) of 1000 | 1,000 ±5% | 330 ±11% |" in page
    assert "| sleep(0) of 1000 | ioxide | 0.3 times uvloop | 0.5 | met |" in page
    assert "| late | failed | 5 ±0% |" in page
    assert "- failed: late on uvloop: it has no such thing" in page
    assert "| many-tasks | 1,000 tasks | uvloop | 2.10 |" in page
    assert "not in it: rloop: it is not here" in page


def test_plots_are_pictures_that_name_what_is_missing(written: Path) -> None:
    pictures = {path.name: path.read_text() for path in (written / "benchmarks").iterdir()}
    assert set(pictures) == {"tasks.svg", "many-tasks.svg", "summary.svg"}
    for text in pictures.values():
        assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert "ioxide: no figure" in pictures["tasks.svg"] and "<polyline" in pictures["many-tasks.svg"]


def test_readme_keeps_what_is_not_between_the_marks(written: Path) -> None:
    readme = (written / "README.md").read_text()
    assert readme.startswith("before\n") and readme.endswith("\nafter\n") and "old" not in readme
    assert "| 0.33 |" in " ".join(readme.split()) and "docs/benchmarks/summary.svg" in readme


def test_missed_goals_are_told() -> None:
    program = "import json, report; print(json.dumps(report.missed(json.loads(sys.argv[1]))))"
    missed = json.loads(python(program, json.dumps(RESULTS)))
    assert missed == [
        "tasks, late: ioxide failed × uvloop, goal 0.5",
        "many-tasks, 100 tasks: ioxide 2.1 × uvloop, goal 0.5",
        "many-tasks, 1,000 tasks: ioxide 2.1 × uvloop, goal 0.5",
    ]
