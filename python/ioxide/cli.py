"""The `ioxide` command: `ioxide run [options] script.py [args…]` and `ioxide run [options] -m module [args…]`.

What it is: `python script.py` and `python -m module`, with ioxide installed before the program's
first line. What it leaves to others: `ioxide.install` and `ioxide.hosts` make the loop ioxide's;
running a module is runpy's work, as it is for `python -m`.

Invariants
C1. The program sees what Python would show it: `__main__`, `sys.argv`, `sys.path[0]`, its file.
C2. An exception leaves through the interpreter itself, so exit status, SystemExit, Ctrl-C and the
    program's own `sys.excepthook` are Python's; only our frames are taken off the traceback.
C3. A script costs no module that asyncio does not import: they would cost a third of the start.
"""

from __future__ import annotations

import builtins
import io
import os
import sys
from collections import namedtuple
from importlib.machinery import SourceFileLoader, SourcelessFileLoader
from types import CodeType, ModuleType, TracebackType

import ioxide
from ioxide.hosts import watch_imports

USAGE = """\
usage: ioxide run [options] script.py [arguments ...]
       ioxide run [options] -m module [arguments ...]
       ioxide --help | --version

Run an asyncio program on ioxide, as `python script.py` would run it.

  --debug           asyncio's debug mode, as with PYTHONASYNCIODEBUG=1
  --no-accelerate   the event loop alone: asyncio keeps its own classes and functions
  -m module         run a module or a package, as with `python -m`
  --help            show this text
  --version         show the versions of ioxide and of Python

`python -m ioxide ...` is the same command for an interpreter of your choice.
"""

_USAGE_ERROR = 2  # what Python itself returns for a script it cannot open and for a bad option

_kept_alive: list[ModuleType] = []


# What the command line asks to run. Not typing's NamedTuple: that is a module which asyncio does not import (C3).
_Program = namedtuple("_Program", ["target", "is_module", "arguments", "debug", "accelerate"])


class _UsageError(Exception):
    """The command line cannot be understood; the message says why."""


def main() -> int | None:
    """Entry point of the `ioxide` script and of `python -m ioxide`."""
    arguments = sys.argv[1:]
    if arguments[:1] in (["--help"], ["-h"], ["help"]):
        sys.stdout.write(USAGE)
        return None
    if arguments[:1] in (["--version"], ["-V"]):
        python = ".".join(map(str, sys.version_info[:3]))
        print(f"ioxide {ioxide.__version__} ({sys.implementation.name} {python})")
        return None
    try:
        program = _parse(arguments)
    except _UsageError as error:
        print(f"ioxide: {error}\n\n{USAGE}", end="", file=sys.stderr)
        return _USAGE_ERROR
    if program is None:
        sys.stdout.write(USAGE)
        return None
    return _run(program)


def _parse(arguments: list[str]) -> _Program | None:
    """The program to run; None when `run` is asked for its help."""
    if not arguments:
        raise _UsageError("a command is needed")
    if arguments[0] != "run":
        raise _UsageError(f"unknown command {arguments[0]!r}")
    debug, accelerate = False, True
    rest = arguments[1:]
    while rest:
        option, *rest = rest
        if option in ("--help", "-h"):
            return None
        if option == "--debug":
            debug = True
        elif option == "--no-accelerate":
            accelerate = False
        elif option == "-m":
            if not rest:
                raise _UsageError("argument expected for the -m option")
            return _Program(rest[0], True, rest[1:], debug, accelerate)
        elif option.startswith("-"):
            raise _UsageError(f"unknown option {option!r}")
        else:
            return _Program(option, False, rest, debug, accelerate)
    raise _UsageError("a script or -m module is needed")


def _run(program: _Program) -> int | None:
    if program.debug:
        # asyncio reads the variable whenever a loop is made; child processes inherit it, as they do
        # from a shell.
        os.environ["PYTHONASYNCIODEBUG"] = "1"
    ioxide.install(accelerate=program.accelerate)
    watch_imports()
    if not program.is_module and not _is_container(program.target):
        return _run_script(program)
    _run_module(program)
    return None


def _is_container(path: str) -> bool:
    """Whether modules can be imported from there: a directory, a zip file."""
    for hook in sys.path_hooks:
        try:
            hook(path)
        except ImportError:
            continue
        return True
    return False


def _run_module(program: _Program) -> None:
    """A module, or the `__main__` of a directory or a zip file, as the interpreter has runpy run them."""
    import runpy

    _replace_main()
    if program.is_module:
        # Python, too, shows "-m" until the module is found; runpy puts its file there.
        sys.argv[:] = ["-m", *program.arguments]
        _replace_first_path(os.getcwd())
        name = program.target
    else:
        sys.argv[:] = [program.target, *program.arguments]
        _replace_first_path(os.path.join(os.getcwd(), program.target), always=True)
        name = "__main__"
    try:
        runpy._run_module_as_main(name, program.is_module)  # type: ignore[attr-defined]
    except BaseException as error:
        _hide_frames(error)
        raise


def _run_script(program: _Program) -> int | None:
    # Python joins and does not normalise: "./x.py" is ".../x.py", "../x.py" keeps its dots.
    path = os.path.join(os.getcwd(), program.target)
    try:
        with io.open_code(path) as file:
            source = file.read()
    except OSError as error:
        print(
            f"ioxide: can't open file {path!r}: [Errno {error.errno}] {error.strerror}",
            file=sys.stderr,
        )
        return _USAGE_ERROR
    module = _replace_main()
    compiled = path.endswith(".pyc")
    loader = (SourcelessFileLoader if compiled else SourceFileLoader)("__main__", path)
    vars(module).update(__file__=path, __loader__=loader)
    if sys.version_info < (3, 15):
        vars(module)["__cached__"] = None
    sys.argv[:] = [program.target, *program.arguments]
    _replace_first_path(os.path.dirname(os.path.realpath(program.target)))
    try:
        code = loader.get_code("__main__") if compiled else None
        exec(code or _compile(source, path), vars(module))
    except BaseException as error:
        _hide_frames(error)
        raise
    return None


def _compile(source: bytes, path: str) -> CodeType:
    # Without dont_inherit the program would be compiled with this file's __future__ imports.
    return compile(source, path, "exec", dont_inherit=True)


def _replace_main() -> ModuleType:
    """A fresh `__main__`, as the interpreter makes it."""
    module = ModuleType("__main__")
    vars(module)["__builtins__"] = builtins
    if sys.version_info < (3, 14):
        vars(module)["__annotations__"] = {}
    # The interpreter goes on using the dictionary of the `__main__` it started, without a reference of its own.
    _kept_alive.append(sys.modules["__main__"])
    sys.modules["__main__"] = module
    return module


def _replace_first_path(path: str, always: bool = False) -> None:
    """Python put our own folder first; with -P or -I it put nothing there."""
    if not sys.flags.safe_path:
        sys.path[0] = path
    elif always:
        sys.path.insert(0, path)


def _hide_frames(error: BaseException) -> None:
    """Have the traceback, if it comes to one, begin with the program's first frame (C2)."""
    # The traceback now begins with the function that ran the program; a SyntaxError of the script
    # itself also went through _compile.
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    shown = frames
    chosen_hook = sys.excepthook

    def hook(
        kind: type[BaseException], value: BaseException, traceback: TracebackType | None
    ) -> None:
        sys.excepthook = chosen_hook
        if value is error:
            value.__traceback__ = sys.last_traceback = traceback = shown
        chosen_hook(kind, value, traceback)

    sys.excepthook = hook
