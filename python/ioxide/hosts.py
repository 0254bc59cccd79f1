"""Programs that choose an event loop without asking asyncio for its default.

What it is: `ioxide run` teaches them that their "automatic" choice is ioxide. Today that is one:
uvicorn, whose "auto" names uvloop or asyncio.SelectorEventLoop.
What it leaves to others: explicit choices (`--loop asyncio`) stay what the user wrote; `install()`
does not use this file.

Invariants
H1. A program that never imports such a host pays one comparison per import and nothing else.
H2. Nothing is imported that asyncio does not import: it would cost every program its time.
H3. The finder removes itself once its module was found; it never imports anything itself.
"""

from __future__ import annotations

import sys

from ioxide.events import new_event_loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType


def uvicorn_loop_factory(
    use_subprocess: bool = False,
) -> Callable[[], asyncio.AbstractEventLoop]:
    """What uvicorn calls for `--loop auto` under `ioxide run`."""
    return new_event_loop


def _teach_uvicorn(module: ModuleType) -> None:
    # Before 0.36 uvicorn had no such table and followed asyncio's default loop by itself.
    factories = getattr(module, "LOOP_FACTORIES", None)
    if factories is not None:
        factories["auto"] = f"{__name__}:{uvicorn_loop_factory.__name__}"


class _AfterImport:
    """A module's own loader, and then one call with the finished module."""

    def __init__(self, loader: Loader, then: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._then = then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # The module must not see that anybody stood in between.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._then(module)


class _HostFinder:
    """Finds one module as everybody else does, and has it taught after its import."""

    def __init__(self, name: str, then: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._then = then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        import importlib.util

        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _AfterImport(spec.loader, self._then)  # type: ignore[assignment]
        return spec


def watch_imports() -> None:
    """Teach the hosts of this file as the program imports them."""
    sys.meta_path.insert(0, _HostFinder("uvicorn.config", _teach_uvicorn))
