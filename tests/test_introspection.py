"""asyncio's tools that read another process's memory see ioxide's tasks: `python -m asyncio ps` and `pstree`, 3.14 and later."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

pytestmark = pytest.mark.skipif(sys.version_info < (3, 14), reason="asyncio's ps and pstree came with Python 3.14")

PROGRAM = """
import asyncio, ioxide

async def leaf():
    await asyncio.sleep(60)

async def branch():
    async with asyncio.TaskGroup() as group:
        group.create_task(leaf(), name="first leaf")
        group.create_task(leaf())

async def main():
    task = asyncio.create_task(branch(), name="the branch")
    await asyncio.sleep(0.05)
    print("ready", flush=True)
    await task

ioxide.run(main())
"""


@pytest.fixture
def program() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def look(tool: str, process: subprocess.Popen[str]) -> str:
    command = [sys.executable, "-m", "asyncio", tool, str(process.pid)]
    seen = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "ermission" in seen.stderr:
        pytest.skip("this machine does not let one process read the memory of another")
    assert seen.returncode == 0, seen.stderr
    return seen.stdout


def test_ps_lists_the_tasks_with_names_stacks_and_awaiters(program: subprocess.Popen[str]) -> None:
    lines = look("ps", program).splitlines()
    leaf = next(line for line in lines if "first leaf" in line)
    # Native sleep() has no Python frame (docs/differences.md).
    assert "leaf" in leaf.replace("first leaf", "") and "the branch" in leaf
    assert any("the branch" in line and "branch" in line and "leaf" not in line for line in lines)
    assert any("Task-" in line and " leaf" in line for line in lines)


def test_pstree_shows_who_awaits_whom(program: subprocess.Popen[str]) -> None:
    tree = look("pstree", program)
    assert tree.index("(T) Task-1") < tree.index("(T) the branch") < tree.index("(T) first leaf")
    assert "leaf" in tree.replace("first leaf", "")


def test_the_call_graph_names_who_awaits() -> None:
    import asyncio

    import ioxide

    async def child() -> str:
        future = asyncio.current_task()
        assert future is not None
        graph = asyncio.capture_call_graph(future)
        assert graph is not None
        return " ".join(awaiter.future.get_name() for awaiter in graph.awaited_by)

    async def main() -> str:
        task = asyncio.create_task(asyncio.sleep(0, None), name="unrelated")
        await task
        return await asyncio.create_task(child(), name="child")

    with asyncio.Runner(loop_factory=ioxide.new_event_loop) as runner:
        assert runner.run(main()).startswith("Task-")
