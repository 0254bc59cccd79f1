"""`ioxide.install()` and `uninstall()`: asyncio's default loop becomes ioxide's, and back."""

from __future__ import annotations

import asyncio
import asyncio.events
import sys
import unittest
import warnings
from asyncio import new_event_loop as name_imported_before
from collections.abc import Iterator

import pytest

import ioxide

needs_policies = pytest.mark.skipif(sys.version_info >= (3, 16), reason="Python 3.16 has no event loop policies")


@pytest.fixture(autouse=True)
def default_policy() -> Iterator[None]:
    """Each test begins and ends with asyncio's default policy, freshly made."""
    set_policy(None)
    yield
    ioxide.uninstall()
    set_policy(None)


def set_policy(policy: object) -> None:
    if sys.version_info < (3, 16):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            asyncio.set_event_loop_policy(policy)  # type: ignore[arg-type]


def get_policy() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return asyncio.get_event_loop_policy()


async def running_type() -> type:
    return type(asyncio.get_running_loop())


def run_with_runner() -> type:
    with asyncio.Runner() as runner:
        return runner.run(running_type())


def type_of_new(loop: asyncio.AbstractEventLoop) -> type:
    loop.close()
    return type(loop)


def run_test_case() -> type:
    seen: list[type] = []

    class Case(unittest.IsolatedAsyncioTestCase):
        async def test(self) -> None:
            seen.append(await running_type())

    result = unittest.TestResult()
    Case("test").run(result)
    assert result.wasSuccessful(), result.errors
    return seen[0]


WAYS = {
    "asyncio.new_event_loop": lambda: type_of_new(asyncio.new_event_loop()),
    "asyncio.events.new_event_loop": lambda: type_of_new(asyncio.events.new_event_loop()),
    "asyncio.run": lambda: asyncio.run(running_type()),
    "asyncio.Runner": run_with_runner,
    "IsolatedAsyncioTestCase": run_test_case,
}


@pytest.mark.parametrize("way", WAYS)
def test_way_to_a_loop_follows_install_and_uninstall(way: str) -> None:
    asyncios = WAYS[way]()
    assert asyncios is not ioxide.EventLoop
    ioxide.install()
    assert WAYS[way]() is ioxide.EventLoop
    ioxide.uninstall()
    assert WAYS[way]() is asyncios


@needs_policies
def test_name_imported_before_install_follows() -> None:
    ioxide.install()
    assert type_of_new(name_imported_before()) is ioxide.EventLoop


def test_explicit_choice_is_left_alone() -> None:
    ioxide.install()
    assert type_of_new(asyncio.SelectorEventLoop()) is asyncio.SelectorEventLoop
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        assert runner.run(running_type()) is asyncio.SelectorEventLoop


@needs_policies
def test_policy_set_after_install_is_honoured() -> None:
    class Loop(asyncio.SelectorEventLoop):
        pass

    class Policy(type(get_policy())):  # type: ignore[misc]
        _loop_factory = Loop

    ioxide.install()
    set_policy(Policy())
    assert asyncio.run(running_type()) is Loop
    set_policy(None)
    assert asyncio.run(running_type()) is ioxide.EventLoop


@needs_policies
def test_policy_of_another_loop_set_before_install_gives_way_and_comes_back() -> None:
    class Loop(asyncio.SelectorEventLoop):
        pass

    class Policy(type(get_policy())):  # type: ignore[misc]
        _loop_factory = Loop

    policy = Policy()
    set_policy(policy)
    ioxide.install()
    assert asyncio.run(running_type()) is ioxide.EventLoop
    ioxide.uninstall()
    assert get_policy() is policy
    assert asyncio.run(running_type()) is Loop


@needs_policies
def test_policy_set_after_install_stays_after_uninstall() -> None:
    ioxide.install()
    mine = type(get_policy())()
    set_policy(mine)
    ioxide.uninstall()
    assert get_policy() is mine
    assert asyncio.run(running_type()) is not ioxide.EventLoop


def test_current_loop_survives_install() -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    ioxide.install()
    assert asyncio.get_event_loop() is loop
    ioxide.uninstall()
    assert asyncio.get_event_loop() is loop
    asyncio.set_event_loop(None)
    loop.close()


def test_install_is_idempotent_and_one_uninstall_undoes_it() -> None:
    before = {name: value for name, value in vars(asyncio).items()}
    ioxide.uninstall()
    ioxide.install()
    ioxide.install()
    assert asyncio.run(running_type()) is ioxide.EventLoop
    ioxide.uninstall()
    assert asyncio.run(running_type()) is not ioxide.EventLoop
    ioxide.uninstall()
    assert {name: value for name, value in vars(asyncio).items()} == before
    ioxide.install()
    assert asyncio.run(running_type()) is ioxide.EventLoop


def test_neither_warns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ioxide.install()
        ioxide.uninstall()
