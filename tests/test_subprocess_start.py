"""How a child begins: in what state its program finds itself, and what goes on in the parent meanwhile. `subprocess.Popen` is
the oracle beside asyncio.

What it leaves to others: programs that cannot be started (test_subprocess_errors.py), the transport
(test_subprocess_transport.py), exits and streams (test_subprocess.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

Loop = asyncio.AbstractEventLoop
Run = Callable[..., Any]
PIPE, DEVNULL = subprocess.PIPE, subprocess.DEVNULL

# What a program can see of how it was started.
REPORT = """
import json, os, resource, sys
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
open_files = {}
for fd in sorted(map(int, os.listdir("/proc/self/fd"))):
    try:
        open_files[fd] = os.readlink(f"/proc/self/fd/{fd}").split(":")[0]
    except OSError:
        pass
# posix_spawn leaves two signals of the C library's own ignored; a program never sees them.
visible = ~(3 << 31)
print(json.dumps({
    "signals": [int(status[name], 16) & visible for name in ("SigBlk", "SigIgn", "SigCgt", "ShdPnd")],
    "files": open_files, "parent": os.getppid(), "threads": status["Threads"].strip(),
    "session is new": os.getsid(0) == os.getpid(), "group is new": os.getpgid(0) == os.getpid(),
    "session": os.getsid(0) if os.getsid(0) != os.getpid() else 0,
    "mask": status["Umask"], "directory": os.getcwd(), "arguments": sys.argv, "nice": os.nice(0),
    "environment": sorted(os.environ.items()), "affinity": sorted(os.sched_getaffinity(0)),
    "user": [os.getresuid(), os.getresgid(), os.getgroups()], "files at most": resource.getrlimit(resource.RLIMIT_NOFILE),
    "memory lock": status["VmLck"], "tracer": status["TracerPid"],
}))
"""
COMMAND = (sys.executable, "-I", "-S", "-c", REPORT, "an argument", "")


def reported(text: bytes) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(text)
    return report


def by_popen(command: Any, **options: Any) -> dict[str, Any]:
    return reported(subprocess.run(command, stdout=PIPE, check=True, **options).stdout)


async def by_loop(*command: Any, **options: Any) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, **options)
    text, _ = await process.communicate()
    assert process.returncode == 0
    return reported(text)


@contextlib.contextmanager
def descriptors_of_all_kinds() -> Iterator[tuple[int, int]]:
    """An inheritable descriptor and one that is not."""
    plain = os.open("/dev/zero", os.O_RDONLY)
    inheritable = os.open("/dev/full", os.O_WRONLY)
    os.set_inheritable(inheritable, True)
    try:
        yield inheritable, plain
    finally:
        os.close(plain)
        os.close(inheritable)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"close_fds": False},
        {"restore_signals": False},
        {"start_new_session": True},
        {"process_group": 0},
        {"umask": 0o26},
        {"cwd": "/"},
        {"cwd": b"/usr"},
        {"cwd": Path("/usr")},
        {"env": {}},
        {"env": {"A": "1", b"B": b"\xff", "PATH": "/bin"}},
        {"stdin": DEVNULL, "stderr": DEVNULL},
        {"stderr": subprocess.STDOUT},
        {"preexec_fn": os.getpid},
        {"pipesize": 8192},
    ],
    ids=str,
)
def test_a_program_is_started_as_by_popen(run: Run, options: dict[str, Any]) -> None:
    options = {"stdin": DEVNULL, **options}
    with descriptors_of_all_kinds():
        found = run(by_loop(*COMMAND, **options))
        expected = by_popen(COMMAND, **options)
    assert found == expected


def test_a_program_gets_the_descriptors_that_are_passed(run: Run) -> None:
    with descriptors_of_all_kinds() as (inheritable, plain):
        for passed in ([plain], (plain, inheritable), [plain, plain, 0], {inheritable}):
            options = {"stdin": DEVNULL, "pass_fds": passed}
            assert run(by_loop(*COMMAND, **options)) == by_popen(COMMAND, **options)
        assert not os.get_inheritable(plain)


def test_a_program_inherits_masks_and_ignored_signals_of_the_thread(run: Run) -> None:
    """Handlers are reset, ignored signals stay ignored, and what the thread blocks is blocked in the program."""

    async def main() -> dict[str, Any]:
        return await by_loop(*COMMAND, stdin=DEVNULL)

    handlers = {signal.SIGUSR1: signal.SIG_IGN, signal.SIGUSR2: lambda *_: None, signal.SIGHUP: signal.SIG_IGN}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH, signal.SIGRTMIN})
    try:
        found, expected = run(main()), by_popen(COMMAND, stdin=DEVNULL)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask | {signal.SIGWINCH, signal.SIGRTMIN}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
    assert found == expected
    blocked, ignored, *_ = found["signals"]
    assert blocked >> (signal.SIGWINCH - 1) & 1 and ignored >> (signal.SIGUSR1 - 1) & 1


STANDARD_STREAMS_CLOSED = """
import asyncio, os, subprocess, sys
{setup}
async def main():
    closed = sorted({closed})
    for fd in closed:
        os.close(fd)
    code = "import os, sys; data = os.read(0, 9); os.write(1, b'out ' + data); os.write(2, b'err')"
    command = [sys.executable, "-I", "-S", "-c", code]
    PIPE = subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    answers = await process.communicate(b"word")
    os.write(result, repr((answers, process.returncode)).encode())
result = os.dup(1)
while result < 3:
    result = os.dup(result)
with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(main())
"""


@pytest.mark.parametrize("closed", [{0}, {1}, {2}, {0, 1}, {0, 2}, {1, 2}, {0, 1, 2}], ids=str)
def test_pipes_with_the_numbers_of_standard_streams(loop_factory: Callable[[], Loop], closed: set[int]) -> None:
    """A parent without standard streams gets its pipes under their numbers."""
    module = loop_factory.__module__.split(".")[0]
    name = "new_event_loop" if module == "ioxide" else "SelectorEventLoop"
    setup = f"from {module} import {name} as factory"
    code = STANDARD_STREAMS_CLOSED.format(setup=setup, closed=closed)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert result.stdout == b"((b'out word', b'err'), 0)", result


def test_audit_hooks_hear_of_every_start(run: Run) -> None:
    code = """
import asyncio, subprocess, sys
from {module} import {name} as factory
heard = []
def hear(event, arguments):
    if event in ("subprocess.Popen", "os.posix_spawn"):
        heard.append((event, *arguments[:2]))
sys.addaudithook(hear)
async def main():
    await (await asyncio.create_subprocess_exec("true", "word", cwd="/")).wait()
    await (await asyncio.create_subprocess_exec("/bin/true")).wait()
    await (await asyncio.create_subprocess_shell("true")).wait()
with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(main())
print(heard)
"""
    heard = []
    for module, name in (("asyncio", "SelectorEventLoop"), ("ioxide", "new_event_loop")):
        program = code.format(module=module, name=name)
        heard.append(subprocess.run([sys.executable, "-c", program], stdout=PIPE, check=True, timeout=60).stdout)
    assert heard[0] == heard[1] and heard[0].count(b"word") == 1


def test_a_start_that_is_cancelled_at_any_turn(run: Run) -> None:
    """The child is ended and reaped, its descriptors are closed, and the task is cancelled, whenever it comes."""

    async def main() -> None:
        for turns in range(12):
            for command in ("sleep", "/no/such/program"):
                start = asyncio.create_task(asyncio.create_subprocess_exec(command, "60", stdin=PIPE, stdout=PIPE, stderr=PIPE))
                for _ in range(turns):
                    await asyncio.sleep(0)
                start.cancel()
                try:
                    process = await start
                except (asyncio.CancelledError, FileNotFoundError):
                    continue
                process.kill()
                await process.communicate()

    before = set(os.listdir("/proc/self/fd"))
    run(main())
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before
    with contextlib.suppress(ChildProcessError):
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        assert ended is None


def test_signals_while_children_begin(run: Run) -> None:
    """A handler runs in the parent alone, once for each signal that arrives there, whatever children are about to begin."""
    pid = os.getpid()

    async def main() -> int:
        caught: list[int] = []
        seen = asyncio.Event()

        def on_signal() -> None:
            caught.append(os.getpid())
            seen.set()

        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, on_signal)

        async def start() -> None:
            process = await asyncio.create_subprocess_exec("true")
            os.kill(pid, signal.SIGUSR1)
            assert await process.wait() == 0

        await asyncio.gather(*(start() for _ in range(30)))
        await seen.wait()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)
        assert set(caught) == {pid}
        return len(caught)

    assert 1 <= run(main()) <= 30


def test_a_parent_that_changes_while_its_children_begin(run: Run) -> None:
    """Environment, directory, descriptors and memory change under way: every child has those of its start."""

    async def start(number: int) -> bytes:
        os.environ["NUMBER"] = str(number)
        words = ["word" * 500 + str(number)] * 3
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", 'echo $NUMBER "$1"', "sh", *words, stdout=PIPE)
        os.environ["NUMBER"] = "changed " * 100
        return (await process.communicate())[0]

    async def churn() -> None:
        while True:
            blocks = [bytearray(os.urandom(64)) * 64 for _ in range(50)]
            os.environ["CHURN" * (len(blocks) % 7 + 1)] = "x" * 3000
            await asyncio.sleep(0)

    async def main() -> None:
        churning = asyncio.create_task(churn())
        answers = await asyncio.gather(*(start(number) for number in range(40)))
        churning.cancel()
        for number, answer in enumerate(answers):
            own, word = answer.split()[-2:]
            assert word == b"word" * 500 + str(number).encode()
            assert own.isdigit() or own == b"changed"

    with mock.patch.dict(os.environ):
        run(main())


def test_children_of_several_threads_at_once(loop_factory: Callable[[], Loop]) -> None:
    """Loops and plain Popens in several threads: no child holds another one's descriptors, and none is lost."""
    failures: list[BaseException] = []

    async def main() -> None:
        async def one() -> None:
            process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
            assert await process.communicate(b"bytes") == (b"bytes", None)
            assert process.returncode == 0

        await asyncio.gather(*(one() for _ in range(15)))

    def by_loops() -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(main())
        except BaseException as error:
            failures.append(error)

    def by_popens() -> None:
        try:
            for _ in range(15):
                assert subprocess.run(["cat"], input=b"bytes", stdout=PIPE, check=True, timeout=60).stdout == b"bytes"
        except BaseException as error:
            failures.append(error)

    before = set(os.listdir("/proc/self/fd"))
    threads = [threading.Thread(target=target) for target in (by_loops, by_popens, by_loops, by_popens)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before


def test_the_loop_goes_on_while_a_program_begins() -> None:
    """ioxide alone (docs/differences.md). A fork_exec that was replaced is called, and holds the thread."""
    import ioxide

    async def main() -> None:
        loop = asyncio.get_running_loop()
        real = subprocess._fork_exec  # type: ignore[attr-defined]
        turns = 0
        with mock.patch.object(subprocess, "_fork_exec", side_effect=real) as patched:
            await (await asyncio.create_subprocess_exec("true")).wait()
            assert patched.call_count == 1, "a replaced fork_exec is honoured"
        starts = [asyncio.ensure_future(asyncio.create_subprocess_exec("true")) for _ in range(3)]
        while not all(start.done() for start in starts):
            turns += 1
            await asyncio.sleep(0)
        for start in starts:
            assert await (await start).wait() == 0
        assert turns > 1 and loop.is_running()

    with asyncio.Runner(loop_factory=ioxide.new_event_loop) as runner:
        runner.run(main())


@pytest.mark.skipif(not hasattr(subprocess, "_USE_VFORK"), reason="this version has no switch")
def test_shared_memory_can_be_forbidden(run: Run) -> None:
    real = subprocess.Popen._execute_child  # type: ignore[attr-defined]
    called: list[Any] = []

    def execute_child(self: Any, *arguments: Any) -> None:
        called.append(subprocess._USE_VFORK)  # type: ignore[attr-defined]
        real(self, *arguments)

    with mock.patch.object(subprocess, "_USE_VFORK", False), mock.patch.object(subprocess.Popen, "_execute_child", execute_child):
        assert run(by_loop(*COMMAND, stdin=DEVNULL))["threads"] == "1"
    assert called == [False]
