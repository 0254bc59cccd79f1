"""`ioxide run`: to the program and to whoever started it, the same as `python script.py`.

Each test runs a program with plain Python, which is the oracle, and under `ioxide run`, and compares.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

import ioxide

PYTHON = [sys.executable]
SCRIPT = Path(sys.executable).with_name("ioxide")
WAYS = {"ioxide": [str(SCRIPT), "run"], "python -m ioxide": [sys.executable, "-m", "ioxide", "run"]}
PATIENCE_SECONDS = 30


class Result(NamedTuple):
    """How a process ended and what it wrote."""

    status: int
    output: str
    errors: str


@pytest.fixture(params=WAYS)
def ioxide_run(request: pytest.FixtureRequest) -> list[str]:
    return WAYS[request.param]


def start(command: list[str], folder: Path, **options: object) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONASYNCIODEBUG"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )  # type: ignore[call-overload]


def finish(process: subprocess.Popen[str]) -> Result:
    output, errors = process.communicate(timeout=PATIENCE_SECONDS)
    # Addresses of objects differ from process to process.
    return Result(process.returncode, *(re.sub(r"0x[0-9a-f]+", "0x…", text) for text in (output, errors)))


def run(command: list[str], folder: Path, **options: object) -> Result:
    return finish(start(command, folder, **options))


def write(folder: Path, program: str, name: str = "program.py") -> None:
    folder.joinpath(name).write_text(program)


# What is native has no Python frames of its own (docs/differences.md).
FRAME_OF_WHAT_IS_NATIVE = re.compile(r'  File "[^"]*asyncio/(?:base_events|locks|tasks)\.py", line \d+, in \w+\n(?:    .*\n)*')


def without_native_frames(result: Result) -> Result:
    return result._replace(errors=FRAME_OF_WHAT_IS_NATIVE.sub("", result.errors))


def assert_same(ioxide_run: list[str], arguments: list[str], folder: Path) -> Result:
    expected = without_native_frames(run([*PYTHON, *arguments], folder))
    assert without_native_frames(run([*ioxide_run, *arguments], folder)) == expected
    return expected


WHAT_IT_SEES = """
import sys, os, __main__
print(sorted(globals()), dir(__main__) == sorted(globals()), __name__, __file__, __doc__, __spec__, __loader__, __package__)
print(sys.argv, sys.path[0], sys.flags, os.getcwd(), __main__.__dict__ is globals(), __builtins__)
print({name: value for name, value in os.environ.items() if name != "_"} , sys.excepthook is sys.__excepthook__)
"""


@pytest.mark.parametrize("path", ["program.py", "./program.py", "sub/../program.py", "link.py"])
def test_script_sees_what_python_shows(ioxide_run: list[str], path: str, tmp_path: Path) -> None:
    write(tmp_path, WHAT_IT_SEES)
    tmp_path.joinpath("sub").mkdir()
    tmp_path.joinpath("sub", "real.py").write_text(WHAT_IT_SEES)
    tmp_path.joinpath("link.py").symlink_to("sub/real.py")
    result = assert_same(ioxide_run, [path, "--debug", "-m", "--", "a b", ""], tmp_path)
    assert result.status == 0 and "'a b'" in result.output


def test_module_and_package_see_what_python_shows(ioxide_run: list[str], tmp_path: Path) -> None:
    write(tmp_path, WHAT_IT_SEES)
    tmp_path.joinpath("package").mkdir()
    write(tmp_path, "import sys; print(sys.argv)", "package/__init__.py")
    write(tmp_path, WHAT_IT_SEES, "package/__main__.py")
    assert assert_same(ioxide_run, ["-m", "program", "--debug", "a"], tmp_path).status == 0
    assert assert_same(ioxide_run, ["-m", "package", "a"], tmp_path).status == 0


def test_folder_zip_file_and_bytecode_run(ioxide_run: list[str], tmp_path: Path) -> None:
    tmp_path.joinpath("folder").mkdir()
    write(tmp_path, WHAT_IT_SEES, "folder/__main__.py")
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("__main__.py", WHAT_IT_SEES)
    write(tmp_path, WHAT_IT_SEES)
    compile_it = "import py_compile; py_compile.compile('program.py', 'program.pyc', doraise=True)"
    subprocess.run([*PYTHON, "-c", compile_it], cwd=tmp_path, check=True)
    for target in ("folder", "archive.zip", "program.pyc"):
        assert assert_same(ioxide_run, [target, "a"], tmp_path).status == 0


FAILURES = {
    "exception": "def fail():\n    raise ValueError('no')\nfail()\n",
    "chained": "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise KeyError('x') from error\n",
    "group": "raise ExceptionGroup('both', [ValueError(1), TypeError(2)])\n",
    "asyncio": "import asyncio\nasync def main():\n    await asyncio.wait_for(asyncio.Event().wait(), 0)\nasyncio.run(main())\n",
    "syntax": "print('never')\nx = = 1\n",
    "import": "import no_such_module\n",
    "own hook": "import sys\nsys.excepthook = lambda *of: print('hook', of[1], of[2].tb_lineno, of[2].tb_frame.f_code)\n1/0\n",
    "base": "class Odd(BaseException): pass\nraise Odd('odd')\n",
    "exit 3": "import sys; sys.exit(3)\n",
    "exit 0": "import sys; sys.exit()\n",
    "exit text": "import sys; sys.exit('goodbye')\n",
    "exit object": "raise SystemExit([1, 2])\n",
    "exit big": "raise SystemExit(2 ** 40)\n",
    "os exit": "import os; os._exit(7)\n",
    "abort": "import os; os.kill(os.getpid(), 6)\n",
    "interrupt": "raise KeyboardInterrupt\n",
    "atexit": "import atexit; atexit.register(print, 'at exit')\nraise ValueError('first')\n",
    "thread": "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.2), print('late'))).start()\n1/0\n",
}


@pytest.mark.parametrize("failure", FAILURES)
def test_end_of_a_script_is_pythons(ioxide_run: list[str], failure: str, tmp_path: Path) -> None:
    write(tmp_path, FAILURES[failure])
    assert_same(ioxide_run, ["program.py"], tmp_path)


@pytest.mark.parametrize("failure", ["exception", "syntax", "exit 3", "exit text", "interrupt", "own hook"])
def test_end_of_a_module_is_pythons(ioxide_run: list[str], failure: str, tmp_path: Path) -> None:
    write(tmp_path, FAILURES[failure])
    assert_same(ioxide_run, ["-m", "program"], tmp_path)


def test_missing_module_is_pythons_error(ioxide_run: list[str], tmp_path: Path) -> None:
    assert assert_same(ioxide_run, ["-m", "no_such_module"], tmp_path).status == 1


def test_missing_script_is_pythons_error(ioxide_run: list[str], tmp_path: Path) -> None:
    expected = run([*PYTHON, "missing.py"], tmp_path)
    result = run([*ioxide_run, "missing.py"], tmp_path)
    assert result.status == expected.status == 2
    # Both begin with the name of the command that was called.
    assert result.errors.partition(": ")[2] == expected.errors.partition(": ")[2]


def test_exception_in_a_task_has_only_frames_of_program_and_asyncio(ioxide_run: list[str], tmp_path: Path) -> None:
    write(tmp_path, "import asyncio\nasync def main():\n    1 / 0\nasyncio.run(main())\n")
    result = run([*ioxide_run, "program.py"], tmp_path)
    assert result.status == 1
    files = re.findall(r'File "([^"]+)"', result.errors)
    assert files[0] == files[-1] == str(tmp_path / "program.py")
    assert not [file for file in files if f"{os.sep}ioxide{os.sep}" in file or file == str(SCRIPT)]


WAITS = "import asyncio\nasync def main():\n    print('ready', flush=True)\n    await asyncio.sleep(60)\nasyncio.run(main())\n"
CLEANS_UP = WAITS.replace(
    "    await asyncio.sleep(60)\n",
    "    try:\n        await asyncio.sleep(60)\n    except asyncio.CancelledError:\n        print('cleaned up')\n        raise\n",
)
BLOCKS = "import time\nprint('ready', flush=True)\ntime.sleep(60)\n"


@pytest.mark.parametrize("program", [WAITS, CLEANS_UP, BLOCKS], ids=["waits", "cleans up", "blocks"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("as_module", [False, True])
def test_signal_ends_the_program_as_it_ends_python(
    ioxide_run: list[str], number: signal.Signals, program: str, as_module: bool, tmp_path: Path
) -> None:
    write(tmp_path, program)
    arguments = ["-m", "program"] if as_module else ["program.py"]

    def interrupted(command: list[str]) -> tuple[int, str, str]:
        with start([*command, *arguments], tmp_path) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.2)  # from its last print to its sleep; too early would only test another place
            process.send_signal(number)
            result = finish(process)
        return result.status, result.output, result.errors.splitlines()[-1] if result.errors else ""

    status, *_ = expected = interrupted(PYTHON)
    assert interrupted(ioxide_run) == expected
    assert status == -number


ASYNCIO_IN_USE = """
import asyncio, json
async def main():
    loop = asyncio.get_running_loop()
    print(type(loop).__module__.split(".")[0], loop.get_debug())
asyncio.run(main())
with asyncio.Runner() as runner:
    runner.run(main())
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
loop.close()
"""


def test_program_runs_on_ioxide(ioxide_run: list[str], tmp_path: Path) -> None:
    write(tmp_path, ASYNCIO_IN_USE)
    assert run([*PYTHON, "program.py"], tmp_path).output == "asyncio False\n" * 3
    for target in (["program.py"], ["-m", "program"]):
        assert run([*ioxide_run, *target], tmp_path) == Result(0, "ioxide False\n" * 3, "")
        assert run([*ioxide_run, "--debug", *target], tmp_path) == Result(0, "ioxide True\n" * 3, "")


def test_safe_path_leaves_the_path_alone(tmp_path: Path) -> None:
    write(tmp_path, "import sys; print(sys.path)")
    for target in (["program.py"], ["-m", "json.tool", "--help"]):
        expected = run([*PYTHON, "-P", *target], tmp_path)
        result = run([*PYTHON, "-P", "-m", "ioxide", "run", *target], tmp_path)
        assert (result.status, result.output) == (expected.status, expected.output)


def test_help_and_version() -> None:
    here = Path.cwd()
    shown = run([str(SCRIPT), "--help"], here)
    assert shown.status == 0 and shown.output.startswith("usage: ioxide run") and shown.errors == ""
    assert run([str(SCRIPT), "run", "--help"], here) == shown
    version = run([str(SCRIPT), "--version"], here)
    python = ".".join(map(str, sys.version_info[:3]))
    assert version == Result(0, f"ioxide {ioxide.__version__} ({sys.implementation.name} {python})\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a command is needed"),
        (["walk"], "unknown command 'walk'"),
        (["run"], "a script or -m module is needed"),
        (["run", "-m"], "argument expected for the -m option"),
        (["run", "--fast", "x.py"], "unknown option '--fast'"),
    ],
)
def test_wrong_command_line_is_explained(arguments: list[str], message: str) -> None:
    result = run([str(SCRIPT), *arguments], Path.cwd())
    assert result.status == 2 and result.output == ""
    assert result.errors.startswith(f"ioxide: {message}\n\nusage: ioxide run")
