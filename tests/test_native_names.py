"""The table of native names, where they stand in asyncio and for how long."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import ioxide
from ioxide import _ioxide
from ioxide.native_names import NATIVE

NAMES = [(submodule, name) for submodule, names in NATIVE.items() for name in names]


def asyncio_modules() -> list[ModuleType]:
    return [module for name, module in sorted(sys.modules.items()) if name.split(".")[0] == "asyncio"]


def snapshot() -> dict[str, dict[str, object]]:
    """Every attribute of asyncio, but for the default policy, which asyncio makes when it is first asked for."""
    return {
        module.__name__: {name: value for name, value in vars(module).items() if name != "_event_loop_policy"}
        for module in asyncio_modules()
    }


def of_asyncio(submodule: str, name: str) -> object:
    """asyncio's object of that name, or None where this version has none."""
    try:
        return getattr(importlib.import_module(f"asyncio.{submodule}"), name, None)
    except ModuleNotFoundError:
        return None


def native_names_stand() -> bool:
    """Whether all of the names stand in asyncio; that only some do is an error."""
    standing = {of_asyncio(*place) is getattr(_ioxide, place[1]) for place in NAMES if of_asyncio(*place) is not None}
    assert len(standing) == 1, standing
    return standing.pop()


async def do_native_names_stand() -> bool:
    return native_names_stand()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = snapshot()
    yield
    ioxide.uninstall()
    assert not native_names_stand()
    after = snapshot()
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("place", NAMES, ids=".".join)
def test_name_of_the_table_is_native_and_exported(place: tuple[str, str]) -> None:
    name = place[1]
    assert getattr(ioxide, name) is getattr(_ioxide, name)
    assert name in ioxide.__all__ and name in dir(ioxide)


def test_every_name_of_asyncio_is_there() -> None:
    assert [name for name in asyncio.__all__ if not hasattr(ioxide, name)] == []


def test_every_place_of_a_name_gets_the_native_one_and_has_its_own_back() -> None:
    before = snapshot()
    mine = {id(of_asyncio(*place)): getattr(_ioxide, place[1]) for place in NAMES if of_asyncio(*place) is not None}
    ioxide.install()
    during = snapshot()
    for module, names in before.items():
        for name, value in names.items():
            if id(value) in mine:
                assert during[module][name] is mine[id(value)], (module, name)
    ioxide.uninstall()
    assert snapshot() == before


def test_import_alone_changes_nothing() -> None:
    program = """
import asyncio, sys
modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "asyncio"]
before = [dict(vars(module)) for module in modules]
import ioxide
for name in ioxide.__all__: getattr(ioxide, name)
assert [dict(vars(module)) for module in modules] == before
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_run_and_runner_place_the_names_for_their_duration() -> None:
    assert ioxide.run(do_native_names_stand())
    assert not native_names_stand()
    runner = ioxide.Runner()
    assert not native_names_stand()
    runner.get_loop()
    assert native_names_stand()
    assert runner.run(do_native_names_stand())
    runner.close()
    assert not native_names_stand()
    runner.close()
    with ioxide.Runner():
        assert native_names_stand()
    assert not native_names_stand()


def test_names_go_when_the_program_raises() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ioxide.run(fail())
    assert not native_names_stand()


def test_runner_whose_loop_cannot_be_made_leaves_nothing() -> None:
    def factory() -> asyncio.AbstractEventLoop:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), ioxide.Runner(loop_factory=factory):
        pass
    assert not native_names_stand()


def test_accelerate_false_places_nothing() -> None:
    assert not ioxide.run(do_native_names_stand(), accelerate=False)
    with ioxide.Runner(accelerate=False) as runner:
        assert not runner.run(do_native_names_stand())
    ioxide.install(accelerate=False)
    assert not asyncio.run(do_native_names_stand())
    assert ioxide.run(do_native_names_stand())
    assert not native_names_stand()


def test_the_last_install_decides_about_the_names() -> None:
    ioxide.install(accelerate=False)
    ioxide.install()
    assert native_names_stand()
    ioxide.install(accelerate=False)
    assert not native_names_stand()
    ioxide.install()
    assert ioxide.run(do_native_names_stand(), accelerate=False)


def test_uninstall_during_a_run_leaves_the_names_to_the_run() -> None:
    async def main() -> None:
        ioxide.uninstall()
        assert native_names_stand()

    ioxide.install()
    ioxide.run(main())
    assert not native_names_stand()


def test_install_during_a_run_outlives_it() -> None:
    async def main() -> None:
        ioxide.install()

    ioxide.run(main())
    assert native_names_stand()


def test_runs_in_several_threads_the_last_one_restores() -> None:
    both_run, first_is_over = threading.Barrier(2), threading.Event()
    seen: list[bool] = []

    async def first() -> None:
        both_run.wait(10)

    async def second() -> None:
        both_run.wait(10)
        first_is_over.wait(10)
        seen.append(native_names_stand())

    def run_first() -> None:
        ioxide.run(first())
        first_is_over.set()

    threads = [threading.Thread(target=run_first), threading.Thread(target=lambda: ioxide.run(second()))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert seen == [True]
    assert not native_names_stand()


def test_nested_run_in_another_thread_of_a_run() -> None:
    async def main() -> list[bool]:
        inner = await asyncio.to_thread(ioxide.run, do_native_names_stand())
        return [inner, native_names_stand()]

    assert ioxide.run(main()) == [True, True]


def test_what_somebody_assigned_in_between_stays() -> None:
    class Mine(asyncio.Task):  # type: ignore[type-arg]
        pass

    found = asyncio.Task
    ioxide.install()
    asyncio.Task = Mine  # type: ignore[misc]
    try:
        ioxide.uninstall()
        assert asyncio.Task is Mine
        assert asyncio.tasks.Task is found
    finally:
        asyncio.Task = found  # type: ignore[misc]


def test_objects_made_before_and_after_keep_working() -> None:
    async def wait(future: asyncio.Future[int]) -> int:
        return await future

    loop = asyncio.SelectorEventLoop()
    before = asyncio.Future(loop=loop)
    task_before = asyncio.Task(wait(before), loop=loop)
    ioxide.install()
    during = asyncio.Future(loop=loop)
    task_during = asyncio.Task(wait(during), loop=loop)
    crossed = asyncio.Task(wait(task_before), loop=loop)
    assert type(task_during) is ioxide.Task and type(task_before) is not ioxide.Task
    ioxide.uninstall()
    assert isinstance(during, asyncio.Future) and isinstance(task_during, asyncio.Task)
    before.set_result(1)
    during.set_result(2)
    assert loop.run_until_complete(asyncio.gather(task_before, task_during, crossed)) == [1, 2, 1]
    loop.close()


@pytest.mark.parametrize(("options", "expected"), [([], "True"), (["--no-accelerate"], "False")])
def test_command_places_the_names_for_the_whole_program(options: list[str], expected: str, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text("import asyncio, ioxide\nprint(asyncio.Task is ioxide.Task, asyncio.tasks._CTask is ioxide.Task)\n")
    command = [sys.executable, "-m", "ioxide", "run", *options, str(script)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{expected} {expected}\n", "")
