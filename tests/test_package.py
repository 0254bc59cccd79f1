"""The names of the package `ioxide`: what they are, and that importing them changes nothing."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.resources
import subprocess
import sys

import pytest

import ioxide

BASES = {
    "EventLoop": asyncio.AbstractEventLoop,
    "Future": asyncio.Future,
    "Task": asyncio.Task,
    "Handle": asyncio.Handle,
    "TimerHandle": asyncio.TimerHandle,
    "Server": asyncio.AbstractServer,
    "Runner": asyncio.Runner,
}


@pytest.mark.parametrize("name", BASES)
def test_class_is_a_subclass_of_asyncios(name: str) -> None:
    assert issubclass(getattr(ioxide, name), BASES[name])
    assert getattr(ioxide, name) is not BASES[name]


def test_all_names_exist() -> None:
    namespace: dict[str, object] = {}
    exec("from ioxide import *", namespace)
    assert set(ioxide.__all__) <= set(namespace)
    assert list(ioxide.__all__) == sorted(ioxide.__all__)


def test_version_is_the_distributions() -> None:
    assert ioxide.__version__ == importlib.metadata.version("ioxide")


def test_package_is_typed() -> None:
    files = importlib.resources.files("ioxide")
    assert files.joinpath("py.typed").is_file()
    stub = files.joinpath("_ioxide.pyi").read_text()
    for name in BASES.keys() - {"Runner"}:
        assert f"class {name}(" in stub or f"class {name}[" in stub


# Run by a fresh interpreter: the state of asyncio and of the import system before and after `import ioxide`.
IMPORT_CHANGES_NOTHING = """
import asyncio, asyncio.events, signal, sys, threading, warnings

def state():
    modules = [module for name, module in sorted(sys.modules.items()) if name.split(".")[0] in ("asyncio", "_asyncio")]
    attributes = {(module.__name__, name): id(value) for module in modules for name, value in vars(module).items()}
    classes = {type for module in modules for type in vars(module).values() if isinstance(type, type_)}
    for class_ in classes:
        for name, value in vars(class_).items():
            attributes[class_.__module__, class_.__qualname__, name] = id(value)
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return attributes, handlers, list(sys.meta_path), sys.excepthook, threading.active_count(), signal.set_wakeup_fd(-1)

type_ = type
before = state()
with warnings.catch_warnings():
    warnings.simplefilter("error")
    import ioxide
after = state()
new = {key for key in after[0].keys() - before[0].keys() if key[0] in {name for name, *_ in before[0]}}
changed = {key for key in before[0] if before[0][key] != after[0].get(key)} | new
assert not changed, changed
assert before[1:] == after[1:], (before[1:], after[1:])
"""


def test_import_changes_nothing() -> None:
    subprocess.run([sys.executable, "-c", IMPORT_CHANGES_NOTHING], check=True)


def test_import_as_asyncio_has_every_name_of_asyncio() -> None:
    own = set(ioxide.__all__)
    for name in asyncio.__all__:
        value = getattr(ioxide, name)
        assert name in own or value is getattr(asyncio, name), name
    assert ioxide.subprocess is asyncio.subprocess
    assert set(asyncio.__all__) <= set(dir(ioxide))


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^module 'ioxide' has no attribute 'no_such_name'$"):
        ioxide.no_such_name  # noqa: B018


def test_import_as_asyncio_runs_a_program() -> None:
    program = (
        "import ioxide as asyncio\n"
        "async def main():\n"
        "    async with asyncio.timeout(5), asyncio.TaskGroup() as group:\n"
        "        group.create_task(asyncio.sleep(0))\n"
        "    return type(asyncio.get_running_loop())\n"
        "assert asyncio.run(main()) is asyncio.EventLoop\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
