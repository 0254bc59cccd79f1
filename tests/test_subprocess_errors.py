"""Programs that cannot be started, and where programs are looked for: `subprocess.Popen` is the oracle beside asyncio.

What it leaves to others: how a child begins (test_subprocess_start.py).
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
PIPE = subprocess.PIPE


def test_where_a_program_is_looked_for(run: Run, tmp_path: Path) -> None:
    """Every folder of PATH in order; what cannot be executed is told of only where nothing can."""
    first, second, empty = tmp_path / "first", tmp_path / "second", tmp_path / "empty"
    for folder in (first, second, empty):
        folder.mkdir()
    (first / "tool").write_text("#!/bin/sh\necho first")
    (second / "tool").write_text("#!/bin/sh\necho second")
    (second / "tool").chmod(0o755)
    (first / "closed").write_text("")
    (first / "text").write_text("no program")
    (first / "text").chmod(0o755)

    async def main() -> list[Any]:
        results: list[Any] = []
        for path in (f"{first}:{second}", f"{second}/:", f"/nowhere:{first}", f"{empty}", ""):
            for name in ("tool", "closed", "text", "missing", "first/tool", ""):
                environment = {"PATH": path}
                try:
                    process = await asyncio.create_subprocess_exec(name, env=environment, cwd=tmp_path, stdout=PIPE)
                    results.append((await process.communicate())[0])
                except (OSError, ValueError) as error:
                    results.append((type(error), error.args, getattr(error, "filename", None)))
        return results

    def expected() -> Iterator[Any]:
        for path in (f"{first}:{second}", f"{second}/:", f"/nowhere:{first}", f"{empty}", ""):
            for name in ("tool", "closed", "text", "missing", "first/tool", ""):
                try:
                    yield subprocess.run([name], env={"PATH": path}, cwd=tmp_path, stdout=PIPE, check=False).stdout
                except (OSError, ValueError) as error:
                    yield (type(error), error.args, getattr(error, "filename", None))

    assert run(main()) == list(expected())


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (("a\0b",), {}),
        (("true", "a\0b"), {}),
        (("true",), {"cwd": "a\0b"}),
        (("true",), {"env": {"A": "a\0b"}}),
        (("true",), {"env": {"A=B": "C"}}),
        (("true",), {"env": {1: 2}}),
        (("true",), {"env": [("A", "B")]}),
        (("true", 1), {}),
        ((Path("/no/such/program"),), {}),
        ((b"/no/such/\xff",), {}),
        (("true",), {"executable": "/no/such/program"}),
        (("true",), {"cwd": "/no/such/directory"}),
        (("true",), {"cwd": "/etc/passwd"}),
        (("true",), {"cwd": 1}),
        (("true",), {"pass_fds": [-1]}),
        (("true",), {"pass_fds": [9999]}),
        (("true",), {"process_group": 999_999}),
        (("true",), {"process_group": "0"}),
        (("true",), {"umask": "0"}),
        (("true",), {"creationflags": 1}),
        (("true",), {"startupinfo": 1}),
        (("true",), {"stdout": 9999}),
        (("true",), {"stdin": "no file"}),
        (("true",), {"user": -1}),
        (("true",), {"user": "no such user"}),
        (("true",), {"group": "no such group"}),
        (("true",), {"extra_groups": "no list"}),
        (("true",), {"pipesize": "1"}),
    ],
    ids=str,
)
def test_what_cannot_be_started_is_told_as_by_popen(run: Run, command: tuple[Any, ...], options: dict[str, Any]) -> None:
    def told(error: BaseException) -> tuple[Any, ...]:
        return type(error), error.args, getattr(error, "filename", None), getattr(error, "errno", None)

    async def main() -> tuple[Any, ...]:
        with pytest.raises(Exception) as caught:
            await asyncio.create_subprocess_exec(*command, **{"stderr": PIPE, **options})
        return told(caught.value)

    before = set(os.listdir("/proc/self/fd"))
    found = run(main())
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before
    with pytest.raises(Exception) as expected:
        subprocess.Popen(command, **{"stderr": PIPE, **options})
    assert found == told(expected.value)


def test_no_more_processes(run: Run) -> None:
    """clone's own error, of the class that the errno stands for."""
    if os.getuid() == 0:
        pytest.skip("the number of root's processes has no limit")

    async def main() -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
        try:
            with pytest.raises(BlockingIOError):
                await asyncio.create_subprocess_exec("true")
        finally:
            resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))

    run(main())


def test_no_more_descriptors(run: Run) -> None:
    async def main() -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = max(map(int, os.listdir("/proc/self/fd")))
        for more in range(1, 9):
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + more, hard))
            try:
                process = await asyncio.create_subprocess_exec("true", stdin=PIPE, stdout=PIPE, stderr=PIPE)
            except OSError:
                continue
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await process.communicate()
        assert await (await asyncio.create_subprocess_exec("true")).wait() == 0

    before = set(os.listdir("/proc/self/fd"))
    run(main())
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before
