"""Claim: files cost little more than the synchronous calls, and an order of magnitude less than on any other library.

Measures each way of file_subject.py row by row: the synchronous calls as the limit, ioxide, ioxide with io_uring or with
threads alone, aiofiles, aiofile and anyio on asyncio's loop; then the loop's lag while a cold file is read, and growth.
Writing to a disk has no goal: creating and truncating cost its file system many times what a library adds, so it is the
tmpfs that tells.

Invariants:
 1. One process holds one library; all of them are pinned to one core, and only one runs at any time.
 2. The ways take turns row by row, in an order that shifts with each round; each round has new processes.
 3. The files are warm: they have just been written. Only the file of the lag is taken out of the page cache.
 4. A lag is judged beside that of the same task while another process reads the file: what the machine does to it. Each is
    the median of rounds, because a single one is late by what others do on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable

import file_subject
import loops
import machine
import report
from processes import Process

# {way: {row: {round: nanoseconds}}}
Samples = dict[str, dict[str, dict[int, float]]]

ROWS = {
    "open_read_close": "open, read 4 KiB, close",
    "pread": "4 KiB at an offset of an open file",
    "gather": "1,000 files of 4 KiB gathered, each",
    "lines": "`async for line`, a line",
    "write": "1,000 files of 4 KiB written to the disk, each",
    "write_in_memory": "1,000 files of 4 KiB written to a tmpfs, each",
    "walk": "walk of a tree, an entry",
}
# row -> (way, the way it is compared with, how many times cheaper (above 0) or dearer at most (below 0), in time)
GOALS: list[tuple[str, str, str, float]] = [
    ("open_read_close", "ioxide", "aiofiles", 10),
    ("open_read_close", "ioxide", "synchronous", -3),
    ("pread", "ioxide", "synchronous", -5),
    ("gather", "ioxide", "aiofiles", 8),
    ("lines", "ioxide", "aiofiles", 100),
    ("lines", "ioxide", "synchronous", -5),
    ("write_in_memory", "ioxide", "aiofiles", 5),
    ("walk", "ioxide", "synchronous", -1.3),
    ("open_read_close", "ioxide threads", "aiofiles", 3),
    ("gather", "ioxide threads", "aiofiles", 3),
    ("write_in_memory", "ioxide threads", "aiofiles", 3),
]
LAG_MILLISECONDS = 2.0
GROWN_KIB = 512


def make_files(folder: str, entries: int, mebibytes: int) -> None:
    small, tree = os.path.join(folder, "small"), os.path.join(folder, "tree")
    os.mkdir(small)
    for number in range(file_subject.FILES):
        with open(os.path.join(small, str(number)), "wb") as file:
            file.write(bytes(file_subject.SIZE))
    with open(os.path.join(folder, "lines"), "w", encoding="utf-8") as lines:
        lines.writelines(f"{number:079}\n" for number in range(file_subject.LINES))
    for directory in range(max(entries // 1000, 1)):
        path = os.path.join(tree, str(directory // 10), str(directory))
        os.makedirs(path)
        for number in range(min(entries, 999)):
            os.close(os.open(os.path.join(path, str(number)), os.O_CREAT | os.O_WRONLY))
    with open(os.path.join(folder, "large"), "wb", 0) as large:
        for _ in range(mebibytes):
            large.write(bytes(1 << 20))


def start(way: str, folders: list[str], options: argparse.Namespace) -> Process:
    command = [sys.executable, os.path.join(machine.HERE, "file_subject.py"), way, *folders]
    command += ["--operations", str(options.operations)]
    environment = {**os.environ, "IOXIDE_FILES": file_subject.WAYS[way][1]}
    return Process(way, machine.MEASURED_CORE, command, environment)


def collect(ways: list[str], rows: list[str], folders: list[str], options: argparse.Namespace) -> tuple[Samples, Samples]:
    wall: Samples = {way: {row: {} for row in rows} for way in ways}
    cpu: Samples = {way: {row: {} for row in rows} for way in ways}
    for round_number in range(options.rounds):
        shift = round_number % len(ways)
        order = ways[shift:] + ways[:shift]
        with contextlib.ExitStack() as stack:
            workers = {way: stack.enter_context(start(way, folders, options)) for way in order}
            for row in rows:
                for way in order:
                    if figures := json.loads(workers[way].ask(row)):
                        wall[way][row][round_number] = figures["wall"]
                        cpu[way][row][round_number] = figures["cpu"]
        print(f"round {round_number + 1} of {options.rounds} done", file=sys.stderr)
    return wall, cpu


def figure(samples: dict[int, float]) -> str:
    if not samples:
        return "not offered"
    microseconds = [sample / 1000 for sample in samples.values()]
    digits = 3 if min(microseconds) < 1 else 1
    return f"{min(microseconds):.{digits}f} · {statistics.median(microseconds):.{digits}f} ±{report.spread(microseconds):.0f}%"


def show(title: str, samples: Samples, ways: list[str], rows: list[str]) -> None:
    print(f"{title}: minimum · median ±spread\n")
    print(report.table(["", *ways], [[ROWS[row], *(figure(samples[way][row]) for way in ways)] for row in rows]) + "\n")


def judge(wall: Samples) -> tuple[list[list[str]], list[str]]:
    """The rows of the table of goals, and the goals that are missed."""
    lines, missed = [], []
    for row, way, other, goal in GOALS:
        if way not in wall or other not in wall or row not in wall[way]:
            continue
        better = goal > 0
        pair = (wall[other][row], wall[way][row]) if better else (wall[way][row], wall[other][row])
        ratio = report.paired_ratio(*pair)
        met = ratio is not None and (ratio >= goal if better else ratio <= -goal)
        wanted = f"at least {goal:g} times faster" if better else f"at most {-goal:g} times"
        shown = "failed" if ratio is None else f"{ratio:.2f}"
        lines.append([ROWS[row], f"{way} : {other}", shown, wanted, "met" if met else "MISSED"])
        if not met:
            missed.append(f"{ROWS[row]}, {way} : {other}")
    return lines, missed


def ask_each(question: str, ways: list[str], folders: list[str], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    answers: dict[str, dict[str, float]] = {}
    for way in ways:
        with start(way, folders, options) as worker:
            answers[way] = json.loads(worker.ask(question, patience=600))
    return answers


def ask_in_turns(question: str, ways: list[str], folders: list[str], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The medians of the rounds' answers."""
    rounds = [ask_each(question, ways, folders, options) for _ in range(options.rounds)]
    return {
        way: {column: statistics.median(answers[way][column] for answers in rounds) for column in rounds[0][way]} for way in ways
    }


def show_answers(title: str, answers: dict[str, dict[str, float]]) -> None:
    columns = list(next(iter(answers.values())))
    print(f"{title}\n")
    lines = [[way, *(f"{found[column]:.2f}" for column in columns)] for way, found in answers.items()]
    print(report.table(["", *columns], lines))
    print()


def versions(ways: list[str]) -> dict[str, str]:
    """Of what each way is made of: ioxide is a loop too, the other libraries are none."""
    return {
        way: loops.version("asyncio" if way == "synchronous" else loops.SUBJECT)
        if way.split()[0] in ("synchronous", loops.SUBJECT)
        else importlib.metadata.version(way)
        for way in ways
    }


def choose(wanted: str) -> list[str]:
    ways = list(file_subject.WAYS) if wanted == "all" else wanted.split(",")
    if unknown := [way for way in ways if way not in file_subject.WAYS]:
        raise SystemExit(f"no such way: {', '.join(unknown)}; known: {', '.join(file_subject.WAYS)}")
    missing = [way for way in ways if way != "synchronous" and importlib.util.find_spec(way.split()[0]) is None]
    for way in missing:
        print(f"left out: {way}: it is not installed", file=sys.stderr)
    return [way for way in ways if way not in missing]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", default="all", help="comma-separated, of: " + ", ".join(file_subject.WAYS))
    parser.add_argument("--rows", default="all", help="comma-separated, of: " + ", ".join([*ROWS, "lag", "growth"]))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--entries", type=int, default=100_000, help="entries of the tree that is walked")
    parser.add_argument("--mebibytes", type=int, default=1024, help="size of the cold file")
    parser.add_argument("--operations", type=int, default=100_000, help="operations of the growth row")
    parser.add_argument("--directory", help="where the files are made: another file system, another disk")
    parser.add_argument("--tmpfs", default="/dev/shm", help="where the files in memory are made")
    parser.add_argument("--json", metavar="FILE", help="write all samples there")
    parser.add_argument("--check", action="store_true", help="fail if ioxide misses a goal")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    ways = choose(options.ways)
    wanted: Callable[[str], bool] = lambda row: options.rows == "all" or row in options.rows.split(",")  # noqa: E731
    rows = [row for row in ROWS if wanted(row)]
    os.sched_setaffinity(0, {machine.CLIENT_CORE})
    report.heading("Files", versions(ways))
    results: dict[str, object] = {"claim": "files"}
    missed: list[str] = []
    in_a_folder = tempfile.TemporaryDirectory
    with in_a_folder(dir=options.directory) as folder, in_a_folder(dir=options.tmpfs) as in_memory:
        folders = [folder, in_memory]
        make_files(folder, options.entries if "walk" in rows else 0, options.mebibytes if wanted("lag") else 0)
        if rows:
            wall, cpu = collect(ways, rows, folders, options)
            show("Wall microseconds per operation", wall, ways, rows)
            show("CPU microseconds per operation, all threads", cpu, ways, rows)
            lines, missed = judge(wall)
            print(report.table(["median of the rounds' ratios of wall time", "ways", "ratio", "goal", ""], lines) + "\n")
            results |= {"wall_nanoseconds": wall, "cpu_nanoseconds": cpu}
        if wanted("lag"):
            lags = ask_in_turns("lag", ways, folders, options)
            title = f"Milliseconds a task is late while {options.mebibytes} MiB that no memory has are read"
            show_answers(f"{title}, medians of {options.rounds} rounds; synchronous: by another process", lags)
            results["lag"] = lags
            missed += [f"lag, {way}" for way, lag in lags.items() if way.startswith("ioxide") and lag["p99"] > LAG_MILLISECONDS]
        if wanted("growth"):
            grown = ask_each("growth", [way for way in ways if way.startswith("ioxide")], folders, options)
            show_answers(f"Grown by the second half of {options.operations} operations", grown)
            results["growth"] = grown
            missed += [f"growth, {way}" for way, by in grown.items() if by["descriptors"] > 0 or by["KiB"] > GROWN_KIB]
    report.write_json(options.json, results)
    if options.check and missed:
        print(f"goal missed: {'; '.join(missed)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
