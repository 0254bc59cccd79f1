"""What the benchmarks compare: event loops, and ioxide in its two shapes, each a contender with a name.

Adding a loop is one entry in CONTENDERS. What is measured belongs to the files beside this one.

Invariants:
 1. Nothing is imported until a contender is asked for, so that a process only ever holds the one it measures.
 2. A contender that cannot be imported is named with its reason, never left out in silence.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Contender:
    module: str
    attribute: str = "new_event_loop"
    # As `ioxide run` does it: native names stand in asyncio's place while the loop runs. Else it is the loop alone.
    native_names: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    # The package whose version counts, where it is not the module's.
    package: str = ""


SUBJECT = "ioxide"
LOOP_ALONE = "ioxide loop"
POLLING = "ioxide loop polling"
BASELINE = "uvloop"
FASTNET = "uvloop+aiofastnet"

CONTENDERS: dict[str, Contender] = {
    "asyncio": Contender("asyncio"),
    "uvloop": Contender("uvloop"),
    "rloop": Contender("rloop"),
    "rsloop": Contender("rsloop"),
    "zuvloop": Contender("zuvloop"),
    # A patched uvloop whose transports and TLS are aiofastnet's.
    FASTNET: Contender("aiofastnet", "loop_factory", package="aiofastnet"),
    # It looks at the kernel in every turn, as asyncio and uvloop do.
    POLLING: Contender("ioxide", environment={"IOXIDE_POLL_EVERY_TURN": "1"}),
    LOOP_ALONE: Contender("ioxide"),
    SUBJECT: Contender("ioxide", native_names=True),
}
# Those that every workload compares; the others belong to workloads that ask for them.
COMMON = ["asyncio", "uvloop", "rloop", "rsloop", "zuvloop", LOOP_ALONE, SUBJECT]


def make_loop(name: str) -> asyncio.AbstractEventLoop:
    if name == FASTNET:
        return importlib.import_module("aiofastnet").loop_factory(importlib.import_module("uvloop").new_event_loop)()
    contender = CONTENDERS[name]
    factory: Callable[[], asyncio.AbstractEventLoop] = getattr(importlib.import_module(contender.module), contender.attribute)
    return factory()


def run(name: str, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Runs the coroutine function `main` on a new loop of that name, with what belongs to the contender."""
    if CONTENDERS[name].native_names:
        return importlib.import_module(CONTENDERS[name].module).run(main())
    with asyncio.Runner(loop_factory=lambda: make_loop(name)) as runner:
        return runner.run(main())


def environment(name: str) -> dict[str, str]:
    """Of a process in which the contender runs; `name` may be a limit, which has none of its own."""
    return {**os.environ, **(CONTENDERS[name].environment if name in CONTENDERS else {})}


def version(name: str) -> str:
    if name == "asyncio":
        return platform.python_version()
    package = CONTENDERS[name].package or CONTENDERS[name].module
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "of this tree"


def _reason_it_cannot_run(name: str) -> str | None:
    """Makes and closes the loop in a process of its own: an import that crashes is an answer too."""
    directory = os.path.dirname(os.path.abspath(__file__))
    program = f"import sys; sys.path.insert(0, {directory!r}); import loops; loops.make_loop({name!r}).close()"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    if result.returncode == 0:
        return None
    lines = result.stderr.strip().splitlines()
    return lines[-1] if lines else f"the process ended with code {result.returncode}"


def choose(wanted: list[str]) -> tuple[list[str], dict[str, str]]:
    """Those of the names that can be made here, and why the others cannot."""
    unknown = [name for name in wanted if name not in CONTENDERS]
    if unknown:
        raise SystemExit(f"no such contender: {'; '.join(unknown)}; known: {'; '.join(CONTENDERS)}")
    reasons = {name: _reason_it_cannot_run(name) for name in wanted}
    absent = {name: reason for name, reason in reasons.items() if reason is not None}
    if wanted and len(absent) == len(wanted):
        raise SystemExit(f"none of the wanted contenders can be made here: {absent}")
    return [name for name in wanted if name not in absent], absent
