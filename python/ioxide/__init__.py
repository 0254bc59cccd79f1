"""ioxide: Python's asyncio, rebuilt in Rust.

What it is: the names a program imports. `import ioxide as asyncio` works too: every name of asyncio
that ioxide does not bring itself is asyncio's own object.
What it leaves to others: everything that runs is in `ioxide._ioxide`, which of its names are
asyncio's is `ioxide.native_names`; changing asyncio itself is `ioxide.install`; the command line is
`ioxide.cli`.

Invariants
P1. Importing this package changes nothing: no asyncio attribute, no policy, no hook.
P2. A name of asyncio is looked up when it is asked for, so its deprecation warnings are asyncio's.
P3. A native name is native here whether or not it stands in asyncio.
"""

from __future__ import annotations

import asyncio as _asyncio
from importlib import import_module as _import_module

# Everything public in there is one of ioxide's names, and the stub says which they are.
from ioxide._ioxide import *  # noqa: F403
from ioxide._ioxide import EventLoop, Handle, QueueShutDown, Server, TimerHandle, __version__
from ioxide.events import new_event_loop
from ioxide.install import install, uninstall
from ioxide.native_names import NATIVE as _NATIVE
from ioxide.runners import Runner, run

_TYPE_CHECKING = False
if _TYPE_CHECKING:
    from typing import Any as _Any

# EventLoopPolicy is absent on purpose: `from ioxide import *` must not warn on 3.14 and later.
__all__ = [
    "EventLoop",
    "Handle",
    "QueueShutDown",
    "Runner",
    "Server",
    "TimerHandle",
    "__version__",
    "install",
    "new_event_loop",
    "run",
    "uninstall",
]
__all__ += [_name for _names in _NATIVE.values() for _name in _names]
__all__.sort()


# Files are imported when somebody asks for them: a program that opens none starts sooner.
_FILES = {"Path": "ioxide.path", "open": "ioxide.opening"}
_FILES |= dict.fromkeys(("stderr", "stderr_bytes", "stdin", "stdin_bytes", "stdout", "stdout_bytes"), "ioxide.standard")
_FILE_MODULES = ("files", "fs", "tempfile")


def __getattr__(name: str) -> _Any:
    if name in _FILES:
        found = globals()[name] = getattr(_import_module(_FILES[name]), name)
        return found
    if name in _FILE_MODULES:
        return _import_module(f"ioxide.{name}")
    if name == "EventLoopPolicy":
        from ioxide.policies import deprecated_policy

        return deprecated_policy()
    # Not only asyncio.__all__: asyncio.subprocess is a submodule, and 3.11 forgot TaskGroup.
    if not name.startswith("__"):
        try:
            return getattr(_asyncio, name)
        except AttributeError:
            pass  # the error that follows names the module that was asked
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_asyncio.__all__, *_FILES, *_FILE_MODULES})
