"""The event loops that the benchmarks compare, and how one of each is made.

Adding a loop is one entry in FACTORIES. What is measured belongs to the scripts beside this file.

Invariants:
 1. Nothing is imported until a loop is asked for, so that a process only ever holds the loop it measures.
 2. A loop that cannot be imported is named with its reason, never left out in silence.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Callable

# name -> (module, callable in it that makes a loop)
FACTORIES: dict[str, tuple[str, str]] = {
    "asyncio": ("asyncio", "new_event_loop"),
    "uvloop": ("uvloop", "new_event_loop"),
    "rloop": ("rloop", "new_event_loop"),
    "zuvloop": ("zuvloop", "new_event_loop"),
    "ioxide": ("ioxide", "new_event_loop"),
}
BASELINE = "uvloop"
SUBJECT = "ioxide"


def make_loop(name: str) -> asyncio.AbstractEventLoop:
    module_name, attribute = FACTORIES[name]
    factory: Callable[[], asyncio.AbstractEventLoop] = getattr(importlib.import_module(module_name), attribute)
    return factory()


def run(name: str, main: Callable[[], object], *, with_names: bool = False) -> object:
    """Runs the coroutine function `main` on a new loop of that name; the loop is current while it runs.

    With `with_names` ioxide's native names stand in asyncio meanwhile, as with ioxide.run(); else it is the loop alone.
    """
    if with_names and name == SUBJECT:
        return importlib.import_module(SUBJECT).run(main())
    with asyncio.Runner(loop_factory=lambda: make_loop(name)) as runner:
        return runner.run(main())  # type: ignore[arg-type]


def version(name: str) -> str:
    if name == "asyncio":
        return platform.python_version()
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "of a source tree, not installed"


def _reason_it_cannot_run(name: str) -> str | None:
    """Makes and closes the loop in a process of its own: an import that crashes is an answer too."""
    directory = os.path.dirname(os.path.abspath(__file__))
    program = f"import sys; sys.path.insert(0, {directory!r}); import loops; loops.make_loop({name!r}).close()"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    if result.returncode == 0:
        return None
    lines = result.stderr.strip().splitlines()
    return lines[-1] if lines else f"the process ended with code {result.returncode}"


def choose(wanted: str) -> list[str]:
    """The loops of a comma-separated list (or `all`) that can be made here; says on stderr which cannot, and why."""
    names = list(FACTORIES) if wanted == "all" else wanted.split(",")
    unknown = [name for name in names if name not in FACTORIES]
    if unknown:
        raise SystemExit(f"no such loop: {', '.join(unknown)}; known: {', '.join(FACTORIES)}")
    usable = []
    for name in names:
        reason = _reason_it_cannot_run(name)
        if reason is None:
            usable.append(name)
        else:
            print(f"left out: {name}: {reason}", file=sys.stderr)
    if not usable:
        raise SystemExit("none of the wanted loops can be made here")
    return usable
