"""The names of the package `ioxide`: what they are, and that importing them changes nothing."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.resources
import subprocess
import sys
import warnings

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
    with pytest.raises(AttributeError, match="^module 'ioxide' has no attribute 'no_such_name'$"):
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


def test_event_loop_policy_makes_ioxide_loops() -> None:
    if sys.version_info >= (3, 16):
        with pytest.raises(AttributeError):
            ioxide.EventLoopPolicy  # noqa: B018
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        policy = ioxide.EventLoopPolicy()
        assert isinstance(policy, asyncio.DefaultEventLoopPolicy)
    loop = policy.new_event_loop()
    assert type(loop) is ioxide.EventLoop
    loop.close()


def test_event_loop_policy_warns_as_the_python_version_does() -> None:
    def warned(module: object, name: str) -> list[tuple[type[Warning], str, str]]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            getattr(module, name)
        return [(each.category, str(each.message).replace("asyncio.Default", "ioxide."), each.filename) for each in caught]

    if sys.version_info < (3, 16):
        assert warned(ioxide, "EventLoopPolicy") == [
            (category, message, __file__) for category, message, _ in warned(asyncio, "DefaultEventLoopPolicy")
        ]


def test_run_returns_the_result_on_an_ioxide_loop() -> None:
    async def main() -> tuple[type, bool]:
        loop = asyncio.get_running_loop()
        return type(loop), loop.get_debug()

    assert ioxide.run(main()) == (ioxide.EventLoop, False)
    assert ioxide.run(main(), debug=True) == (ioxide.EventLoop, True)
    assert ioxide.run(main(), loop_factory=asyncio.SelectorEventLoop)[0] is asyncio.SelectorEventLoop


def test_run_inside_a_running_loop_raises_what_asyncio_raises() -> None:
    async def nothing() -> None:
        pass

    async def main(run: object) -> str:
        coroutine = nothing()
        with pytest.raises(RuntimeError) as caught:
            run(coroutine)  # type: ignore[operator]
        coroutine.close()
        return str(caught.value)

    assert ioxide.run(main(ioxide.run)) == asyncio.run(main(asyncio.run))


def test_runner_keeps_its_loop_between_runs() -> None:
    async def running() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    with ioxide.Runner() as runner:
        loop = runner.run(running())
        assert type(loop) is ioxide.EventLoop
        assert runner.run(running()) is loop is runner.get_loop()
    assert loop.is_closed()


def test_new_event_loop_is_new() -> None:
    first, second = ioxide.new_event_loop(), ioxide.new_event_loop()
    assert type(first) is ioxide.EventLoop and first is not second
    first.close()
    second.close()
