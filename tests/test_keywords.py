"""Parameters of the loop's methods can be given by name, as asyncio's can."""

from __future__ import annotations

import asyncio
import inspect
import socket
from contextvars import copy_context

import pytest

import ioxide

PUBLIC = sorted(
    name
    for name, function in vars(asyncio.SelectorEventLoop.__mro__[2]).items()
    if not name.startswith("_") and inspect.isfunction(function)
)


def test_scheduling_takes_names(loop: asyncio.AbstractEventLoop) -> None:
    seen: list[str] = []
    loop.call_soon(callback=lambda: seen.append("soon"))
    loop.call_soon_threadsafe(callback=lambda: seen.append("threadsafe"), context=copy_context())
    loop.call_later(0, callback=lambda: seen.append("later"))
    loop.call_later(delay=0, callback=lambda: seen.append("much later"))
    loop.call_at(when=loop.time() + 0.01, callback=loop.stop)
    loop.run_forever()
    assert seen == ["soon", "threadsafe", "later", "much later"]


def test_running_takes_names(loop: asyncio.AbstractEventLoop) -> None:
    async def answer() -> int:
        return 42

    async def main() -> int:
        return await loop.create_task(coro=answer(), name="by name")

    loop.set_debug(enabled=True)
    loop.set_task_factory(factory=None)
    assert loop.run_until_complete(future=main()) == 42


def test_watching_takes_names(loop: asyncio.AbstractEventLoop) -> None:
    here, there = socket.socketpair()
    with here, there:
        loop.add_reader(fd=here, callback=loop.stop)
        there.send(b"x")
        loop.run_forever()
        assert loop.remove_reader(fd=here) is True
        loop.add_writer(here, callback=loop.stop)
        loop.run_forever()
        assert loop.remove_writer(fd=here) is True


@pytest.mark.parametrize(
    "call",
    [
        lambda loop: loop.call_soon(callback=print, surprise=1),
        lambda loop: loop.call_soon(print, callback=print),
        lambda loop: loop.call_soon(),
        lambda loop: loop.call_later(1),
        lambda loop: loop.call_at(callback=print),
        lambda loop: loop.set_debug(),
        lambda loop: loop.set_debug(True, False),
        lambda loop: loop.add_reader(0),
        lambda loop: loop.remove_reader(),
        lambda loop: loop.create_task(),
    ],
)
def test_wrong_arguments_are_type_errors(loop: asyncio.AbstractEventLoop, call: object) -> None:
    with pytest.raises(TypeError):
        call(loop)  # type: ignore[operator]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_method_has_asyncios_parameter_names(name: str) -> None:
    theirs = inspect.signature(getattr(asyncio.SelectorEventLoop, name)).parameters.values()
    ours = inspect.signature(getattr(ioxide.EventLoop, name)).parameters.values()
    wanted = [parameter.name for parameter in theirs if parameter.kind is not parameter.VAR_KEYWORD]
    given = [parameter.name for parameter in ours if parameter.name in wanted]  # keywords of newer versions are there as well
    if name == "create_task":  # what its keywords are depends on the patch release; see asyncio's own signature
        wanted, given = wanted[:2], given[:2]
    assert given == wanted
