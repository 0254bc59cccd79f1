"""`ioxide.EventLoopPolicy`, as long as Python has event loop policies."""

from __future__ import annotations

import asyncio
import sys
import warnings

import pytest

import ioxide


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
