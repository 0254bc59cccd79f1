"""`install()`, `uninstall()` and the native names in asyncio: the only file that assigns to attributes of asyncio.

What it is: `install()` makes ioxide's the default loop of the whole process. asyncio.new_event_loop, asyncio.run,
asyncio.Runner and IsolatedAsyncioTestCase all ask one place for a loop they were not told about; that place is what
changes, so functions imported before `install()` follow as well. The native names (`native_names.NATIVE`) go into
asyncio and its submodules as long as `install()` stands or an `ioxide.Runner` lives.
What it leaves to others: code that names a class (asyncio.SelectorEventLoop) or sets a policy of its own afterwards has
chosen, and is left alone; a name that a module took with `from asyncio import …` before is that module's.

Invariants
I1. `install()` twice is `install()` once; `uninstall()` without it does nothing. They do not nest: one `uninstall()`
    undoes it, however many `install()` came before. The last `accelerate` holds.
I2. What is restored is what was found, and only where our own value still stands: what somebody assigned in between
    stays.
I3. Nothing here warns, on any Python version.
I4. The names are counted: they stay until everybody who placed them has given them back, from any thread.
"""

from __future__ import annotations

import asyncio
import asyncio.events
import importlib
import sys
import threading

from ioxide import _ioxide
from ioxide.events import new_event_loop
from ioxide.native_names import NATIVE
from ioxide.policies import default_policy, ioxide_policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType
    from typing import Any

__all__ = ("install", "uninstall")


class _Assignments:
    """Attributes that were set together and are restored together."""

    def __init__(self) -> None:
        # Where, the name, what stood there, what stands there now.
        self._made: list[tuple[Any, str, Any, Any]] = []

    def __bool__(self) -> bool:
        return bool(self._made)

    def assign(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute and remember what stood there."""
        self._made.append((owner, name, getattr(owner, name), value))
        setattr(owner, name, value)

    def restore(self) -> None:
        """Put back what was found, where nobody else has assigned since (I2)."""
        while self._made:
            owner, name, found, placed = self._made.pop()
            if getattr(owner, name, None) is placed:
                setattr(owner, name, found)


class _NativeNames:
    """The native names in asyncio, and how many want them there (I4)."""

    def __init__(self) -> None:
        # Reentrant, because a signal handler may run a loop of its own while we assign.
        self._lock = threading.RLock()
        self._wanted_by = 0
        self._assignments = _Assignments()

    def place(self) -> None:
        """Put the native names into asyncio; each call is undone by one `give_back`."""
        with self._lock:
            self._wanted_by += 1
            if self._wanted_by == 1:
                for module, name, native in _places():
                    self._assignments.assign(module, name, native)

    def give_back(self) -> None:
        """Undo one `place`; the last one restores asyncio."""
        with self._lock:
            self._wanted_by -= 1
            if self._wanted_by == 0:
                self._assignments.restore()


def _places() -> Iterator[tuple[ModuleType, str, object]]:
    """Every attribute of asyncio and its submodules that means a name of the table, with the native object."""
    # By identity: asyncio.streams.sleep, asyncio.tasks._CTask and what later versions import where.
    native_by_identity: dict[int, object] = {}
    for submodule, names in NATIVE.items():
        try:
            module = importlib.import_module(f"asyncio.{submodule}")
        except ModuleNotFoundError:
            continue  # a newer version's submodule
        for name in names:
            if hasattr(module, name):
                native_by_identity[id(getattr(module, name))] = getattr(_ioxide, name)
    for module_name in [name for name in sys.modules if name == "asyncio" or name.startswith("asyncio.")]:
        module = sys.modules[module_name]
        for name, value in list(vars(module).items()):
            if id(value) in native_by_identity:
                yield module, name, native_by_identity[id(value)]


native_names = _NativeNames()
_default_loop = _Assignments()
_accelerated = False


def install(*, accelerate: bool = True) -> None:
    """Make ioxide's the event loop that asyncio creates in this process, and its native names asyncio's.

    With accelerate=False only the loop: asyncio keeps its own classes and functions.
    """
    _accelerate(accelerate)
    if _default_loop:
        return
    policy, replacement = default_policy(), ioxide_policy()
    if policy is None or replacement is None:
        _default_loop.assign(asyncio, "new_event_loop", new_event_loop)
        _default_loop.assign(asyncio.events, "new_event_loop", new_event_loop)
        return
    # The default policy's class, not a policy object: the current loop of each thread stays, and
    # set_event_loop_policy(None) still means ioxide.
    _default_loop.assign(policy, "_loop_factory", _ioxide.EventLoop)
    current = asyncio.events._event_loop_policy  # type: ignore[attr-defined]
    if current is not None and type(current) is not policy:
        # Another loop's policy was set before: who calls install() now wants ioxide. The attribute
        # is set because set_event_loop_policy() warns from 3.14 on (I3).
        _default_loop.assign(asyncio.events, "_event_loop_policy", replacement())


def uninstall() -> None:
    """Undo `install()`. Runs of `ioxide.run()` that are under way keep the native names until they end."""
    _accelerate(False)
    _default_loop.restore()


def _accelerate(wanted: bool) -> None:
    """Have `install()` want the native names, or not."""
    global _accelerated
    if wanted == _accelerated:
        return
    _accelerated = wanted
    if wanted:
        native_names.place()
    else:
        native_names.give_back()
