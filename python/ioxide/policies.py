"""Event loop policies, as long as Python has them (until 3.15; deprecated since 3.14).

What it is: `ioxide.EventLoopPolicy`, asyncio's default policy with ioxide's loop, built when it is
first asked for, and the place that knows where each Python version keeps its default policy.
What it leaves to others: making it the process's policy (the user, or `ioxide.install`).

Invariants
O1. Reading this module never warns: asyncio's private names are read where the public ones warn.
O2. Only `deprecated_policy`, which is what a user reaches, warns, and as asyncio's own name would.
"""

from __future__ import annotations

import asyncio
import sys
import warnings

from ioxide._ioxide import EventLoop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def default_policy() -> type[Any] | None:
    """asyncio's default policy class; None where Python has no policies any more."""
    name = "_DefaultEventLoopPolicy" if sys.version_info >= (3, 14) else "DefaultEventLoopPolicy"
    return getattr(asyncio.unix_events, name, None)


_made: list[type[Any]] = []


def ioxide_policy() -> type[Any] | None:
    """The class behind `ioxide.EventLoopPolicy`, one for ever; None where Python has no policies any more."""
    base = default_policy()
    if base is not None and not _made:
        body = {
            "__module__": "ioxide",
            "__doc__": "asyncio's default event loop policy, creating ioxide event loops.",
            "_loop_factory": EventLoop,
        }
        _made.append(type("EventLoopPolicy", (base,), body))
    return _made[0] if _made else None


def deprecated_policy() -> type[Any]:
    """`ioxide.EventLoopPolicy` for a user: the class, with the warning of the Python version."""
    policy = ioxide_policy()
    if policy is None:
        raise AttributeError("module 'ioxide' has no attribute 'EventLoopPolicy'")
    if sys.version_info >= (3, 14):
        warnings.warn(
            "'ioxide.EventLoopPolicy' is deprecated and slated for removal in Python 3.16",
            DeprecationWarning,
            stacklevel=3,  # the line that wrote ioxide.EventLoopPolicy
        )
    return policy
