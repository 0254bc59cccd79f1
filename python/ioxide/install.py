"""`install()` and `uninstall()`: the only file that assigns to attributes of asyncio.

What it is: the default loop of the whole process becomes ioxide's. asyncio.new_event_loop,
asyncio.run, asyncio.Runner and IsolatedAsyncioTestCase all ask one place for a loop they were not
told about; that place is what changes, so functions imported before `install()` follow as well.
What it leaves to others: code that names a class (asyncio.SelectorEventLoop) or sets a policy of
its own afterwards has chosen, and is left alone.

Invariants
I1. `install()` twice is `install()` once; `uninstall()` without it does nothing. They do not nest:
    one `uninstall()` undoes it, however many `install()` came before.
I2. `uninstall()` restores what `install()` found, and only where its own value still stands: what
    somebody assigned in between stays.
I3. Nothing here warns, on any Python version.
"""

from __future__ import annotations

import asyncio
import asyncio.events
from typing import Any, NamedTuple

from ioxide._ioxide import EventLoop
from ioxide.policies import default_policy, ioxide_policy
from ioxide.runners import new_event_loop

__all__ = ("install", "uninstall")


class _Assignment(NamedTuple):
    """One attribute that `install()` set: where, what stood there, and what stands there now."""

    owner: Any
    name: str
    found: Any
    placed: Any


_assignments: list[_Assignment] = []


def install() -> None:
    """Make ioxide's the event loop that asyncio creates in this process."""
    if _assignments:
        return
    policy, replacement = default_policy(), ioxide_policy()
    if policy is None or replacement is None:
        _assign(asyncio, "new_event_loop", new_event_loop)
        _assign(asyncio.events, "new_event_loop", new_event_loop)
        return
    # The default policy's class, not a policy object: the current loop of each thread stays, and
    # set_event_loop_policy(None) still means ioxide.
    _assign(policy, "_loop_factory", EventLoop)
    current = asyncio.events._event_loop_policy  # type: ignore[attr-defined]
    if current is not None and type(current) is not policy:
        # Another loop's policy was set before: who calls install() now wants ioxide. The attribute
        # is set because set_event_loop_policy() warns from 3.14 on (I3).
        _assign(asyncio.events, "_event_loop_policy", replacement())


def uninstall() -> None:
    """Undo `install()`."""
    while _assignments:
        assignment = _assignments.pop()
        if getattr(assignment.owner, assignment.name) is assignment.placed:
            setattr(assignment.owner, assignment.name, assignment.found)


def _assign(owner: Any, name: str, value: Any) -> None:
    _assignments.append(_Assignment(owner, name, getattr(owner, name), value))
    setattr(owner, name, value)
