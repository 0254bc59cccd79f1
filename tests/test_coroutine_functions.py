"""Native functions that are `async def` in asyncio: everything that tells them from others must say what it says of asyncio's."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import pickle
import types
import weakref
from typing import Any
from unittest import mock

import pytest

import ioxide

METHODS = [
    "getaddrinfo", "getnameinfo", "sock_accept", "sock_connect", "sock_recv", "sock_recv_into", "sock_recvfrom",
    "sock_recvfrom_into", "sock_sendall", "sock_sendto",
]  # fmt: skip
CLASSES = {"asyncio": asyncio.SelectorEventLoop, "ioxide": ioxide.EventLoop}


@pytest.fixture(params=CLASSES)
def loop_class(request: pytest.FixtureRequest) -> Any:
    return CLASSES[request.param]


@pytest.mark.parametrize("name", METHODS)
def test_is_a_coroutine_function(loop_class: Any, name: str, loop: asyncio.AbstractEventLoop) -> None:
    for function in (getattr(loop_class, name), getattr(loop, name), functools.partial(getattr(loop, name), None)):
        assert inspect.iscoroutinefunction(function)
    assert inspect.isroutine(getattr(loop_class, name))
    assert inspect.ismethod(getattr(loop, name))
    assert getattr(loop, name).__self__ is loop
    assert getattr(loop, name) == getattr(loop, name)


@pytest.mark.parametrize("name", METHODS)
def test_has_the_signature_of_asyncio(name: str) -> None:
    own, oracle = (inspect.signature(getattr(CLASSES[side], name)) for side in ("ioxide", "asyncio"))
    assert own == oracle


def test_says_its_name(loop_class: Any) -> None:
    function = loop_class.sock_recv
    assert function.__name__ == "sock_recv"
    assert function.__qualname__.endswith("EventLoop.sock_recv")
    assert repr(function).startswith(f"<function {function.__qualname__} at 0x")
    assert inspect.ismethoddescriptor(function) or inspect.isfunction(function)
    assert function.__get__(None, loop_class) is function


def test_is_pickled_by_name_and_copied_as_itself(loop_class: Any) -> None:
    function = loop_class.sock_recv
    if function.__module__ == "ioxide":
        assert pickle.loads(pickle.dumps(function)) is function
    assert copy.copy(function) is function
    assert copy.deepcopy(function) is function


def test_takes_attributes_and_weak_references(loop_class: Any) -> None:
    function = loop_class.sock_recv
    function.mark = 1
    assert vars(function) == {"mark": 1}
    del function.mark
    assert vars(function) == {}
    assert weakref.ref(function)() is function


def test_wrappers_are_told_nothing_that_is_not_true(loop_class: Any) -> None:
    @functools.wraps(loop_class.sock_recv)
    def plain() -> None: ...

    assert plain.__name__ == "sock_recv"
    assert plain.__wrapped__ is loop_class.sock_recv  # type: ignore[attr-defined]
    assert not inspect.iscoroutinefunction(plain)


def test_mocks_of_it_are_awaited(loop_class: Any, loop: asyncio.AbstractEventLoop) -> None:
    with mock.patch.object(loop_class, "sock_recv") as replaced:
        assert isinstance(replaced, mock.AsyncMock)
    assert isinstance(mock.Mock(loop_class).sock_recv, mock.AsyncMock)
    specified = mock.create_autospec(loop_class.sock_recv)
    with pytest.raises(TypeError):
        loop.run_until_complete(specified())
    specified.return_value = b"data"
    assert loop.run_until_complete(specified(loop, None, 1)) == b"data"


def test_is_called_with_an_instance_only() -> None:
    with pytest.raises(TypeError, match=r"needs an argument"):
        ioxide.EventLoop.sock_recv()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"needs an instance"):
        ioxide.EventLoop.sock_recv(object(), None, 1)  # type: ignore[arg-type]


def test_can_be_overridden_and_called_by_the_one_that_overrides() -> None:
    class Loop(ioxide.EventLoop):
        async def getaddrinfo(self, *arguments: Any, **keywords: Any) -> Any:
            return len(await super().getaddrinfo(*arguments, **keywords))

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(runner.get_loop().getaddrinfo("127.0.0.1", 80)) >= 1
    gc.collect()


class OwnLock(ioxide.Lock):
    """A class whose instances have attributes."""


@pytest.mark.parametrize("name", ["__aenter__", "__aexit__"])
def test_what_async_with_binds_is_a_bound_method(name: str) -> None:
    lock = OwnLock()
    method = getattr(lock, name)
    real = types.MethodType(getattr(OwnLock, name), lock)
    assert isinstance(method, types.MethodType) and inspect.ismethod(method)
    assert method == real and real == method and hash(method) == hash(real) and method == getattr(lock, name)
    assert method != getattr(ioxide.Lock(), name) and method != 1
    assert repr(method) == repr(real) and dir(method) == dir(real)
    assert method.__self__ is lock and method.__func__ is getattr(OwnLock, name) and method.__name__ == name
    assert inspect.signature(method) == inspect.signature(real)
    assert copy.copy(method) == copy.deepcopy(method, {id(lock): lock}) == real
    for wrong in (
        lambda it: setattr(it, "x", 1),
        lambda it: delattr(it, "x"),
        lambda it: it.x,
        lambda it: it(1, 2, 3, 4),
        lambda it: it < it,
    ):
        texts = []
        for it in (method, real):
            with pytest.raises((AttributeError, TypeError)) as raised:
                wrong(it)
            texts.append((type(raised.value), str(raised.value).replace("ioxide.BoundMethod", "method")))
        assert texts[0] == texts[1]


def test_what_async_with_binds_keeps_nothing_alive() -> None:
    lock = OwnLock()
    method: Any = lock.__aenter__
    of_method, of_lock = weakref.ref(method), weakref.ref(lock)
    assert of_method() is method
    del method
    assert of_method() is None
    lock.itself = lock.__aenter__  # type: ignore[attr-defined]
    del lock
    gc.collect()
    assert of_lock() is None


def test_what_async_with_binds_can_be_called_again(run: Any) -> None:
    async def main() -> None:
        lock = ioxide.Lock()
        enter, leave = lock.__aenter__, functools.partial(lock.__aexit__, None, None, None)
        for _ in range(3):
            await enter()
            assert lock.locked()
            await leave()
        assert not lock.locked()
        with pytest.raises(TypeError):
            ioxide.Lock.__aenter__.__get__(asyncio.Lock())()

    run(main())
