"""Child processes: every keyword of Popen, exits, signals, errors of exec, many at once, several loops and threads.

What it leaves to others: what CPython's own test_subprocess asks; a pipeline that moves much (apps/test_pipeline.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

Loop = asyncio.AbstractEventLoop
Run = Callable[..., Any]
PIPE = subprocess.PIPE
NEEDS_POLICY = pytest.mark.skipif(sys.version_info >= (3, 14), reason="child watchers ended with Python 3.13")


def children() -> set[str]:
    """The processes that this one has started and nobody has waited for yet; the servers of other tests are among them."""
    return {child for thread in Path("/proc/self/task").iterdir() for child in (thread / "children").read_text().split()}


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


async def output(*command: Any, **options: Any) -> bytes:
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, **options)
    data, _ = await process.communicate()
    assert process.returncode == 0
    return data


def python(code: str) -> tuple[str, str, str]:
    return sys.executable, "-c", code


def test_exit_codes_and_signals(run: Run) -> None:
    async def main() -> list[int]:
        commands = ["exit 0", "exit 7", "exit 255", "kill -TERM $$", "kill -KILL $$"]
        processes = [await asyncio.create_subprocess_shell(command) for command in commands]
        return [await process.wait() for process in processes]

    assert run(main()) == [0, 7, 255, -signal.SIGTERM, -signal.SIGKILL]


def test_the_transport(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        calls: list[Any] = []

        class Protocol(asyncio.SubprocessProtocol):
            def connection_made(self, transport: Any) -> None:
                calls.append("connection_made")

            def pipe_data_received(self, fd: int, data: bytes) -> None:
                calls.append((fd, data))

            def process_exited(self) -> None:
                calls.append("process_exited")

            def connection_lost(self, exc: BaseException | None) -> None:
                ended.set_result(exc)

        transport, protocol = await loop.subprocess_exec(Protocol, "/bin/sh", "-c", "read word; echo $word; echo bad >&2; exit 3")
        assert isinstance(transport, asyncio.SubprocessTransport)
        assert isinstance(transport, asyncio.base_subprocess.BaseSubprocessTransport)
        assert isinstance(protocol, Protocol)
        popen = transport.get_extra_info("subprocess")
        assert type(popen) is subprocess.Popen and popen.pid == transport.get_pid()
        assert transport.get_returncode() is None
        assert f"pid={popen.pid} running stdin=" in repr(transport)
        stdin: Any = transport.get_pipe_transport(0)
        stdin.write(b"word\n")
        assert await ended is None
        assert transport.get_returncode() == 3 and popen.returncode == 3
        assert calls[0] == "connection_made" and "process_exited" in calls
        assert {(1, b"word\n"), (2, b"bad\n")} <= {call for call in calls if isinstance(call, tuple)}
        transport.close()
        assert f"closed pid={popen.pid} returncode=3" in repr(transport)

    run(main())


def test_where_and_with_what(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        assert await output("/bin/pwd", cwd=tmp_path) == os.fsencode(tmp_path) + b"\n"
        assert await output("/usr/bin/env", env={"ONLY": "this"}) == b"ONLY=this\n"
        assert await output("sh", "-c", "umask", umask=0o27) == b"0027\n"
        assert await output(b"/bin/echo", Path("a path"), b"bytes") == b"a path bytes\n"
        assert await output("anything", "-c", "echo $0", executable="/bin/sh") == b"anything\n"
        await output("true", restore_signals=False, close_fds=False, startupinfo=None, creationflags=0)

    run(main())


def test_sessions_and_groups(run: Run) -> None:
    ids = python("import os; print(os.getpid(), os.getsid(0), os.getpgid(0))")

    async def main() -> None:
        pid, session, group = map(int, (await output(*ids, start_new_session=True)).split())
        assert pid == session == group
        pid, session, group = map(int, (await output(*ids, process_group=0)).split())
        assert pid == group and session == os.getsid(0)

    run(main())


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")
def test_users_and_groups(run: Run) -> None:
    async def main() -> None:
        code = "echo $(id -u) $(id -g) $(id -G)"
        assert await output("/bin/sh", "-c", code, user=12345, group=23456, extra_groups=[34567]) == b"12345 23456 23456 34567\n"

    run(main())


def test_descriptors_that_are_passed(run: Run) -> None:
    async def main() -> None:
        read, write = os.pipe()
        other, unused = os.pipe()
        os.set_inheritable(other, True)
        try:
            code = python(
                "import os, sys; os.write(int(sys.argv[1]), b'passed'); print(os.path.exists('/proc/self/fd/' + sys.argv[2]))"
            )
            assert await output(*code, str(write), str(other), pass_fds=[write]) == b"False\n"
            assert os.read(read, 100) == b"passed"
        finally:
            for descriptor in (read, write, other, unused):
                os.close(descriptor)

    run(main())


def test_preexec_fn_and_pipesize(run: Run) -> None:
    async def main() -> None:
        assert await output("sh", "-c", "umask", preexec_fn=lambda: os.umask(0o31)) == b"0031\n"
        with pytest.raises(subprocess.SubprocessError, match="Exception occurred in preexec_fn"):
            await asyncio.create_subprocess_exec("true", preexec_fn=lambda: 1 / 0)
        assert await output("echo", "small", pipesize=4096) == b"small\n"

    run(main())


def test_redirections(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "out"
        with path.open("wb") as file:
            process = await asyncio.create_subprocess_shell("echo out; echo err >&2", stdout=file, stderr=subprocess.STDOUT)
            assert process.stdout is None and await process.wait() == 0
        assert path.read_bytes() == b"out\nerr\n"
        process = await asyncio.create_subprocess_shell(
            "cat; echo err >&2", stdin=subprocess.DEVNULL, stdout=PIPE, stderr=subprocess.STDOUT
        )
        assert await process.communicate() == (b"err\n", None)

    run(main())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"universal_newlines": True}, "universal_newlines must be False"),
        ({"shell": True}, "shell must be False"),
        ({"bufsize": 4096}, "bufsize must be 0"),
        ({"text": True}, "text must be False"),
        ({"encoding": "utf-8"}, "encoding must be None"),
        ({"errors": "strict"}, "errors must be None"),
    ],
)
def test_options_about_text_are_refused(run: Run, options: dict[str, Any], message: str) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match=message):
            await asyncio.create_subprocess_exec("true", **options)

    run(main())


def test_bad_arguments(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with pytest.raises(ValueError, match="cmd must be a string"):
            await asyncio.create_subprocess_shell(["true"])  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="shell must be True"):
            await asyncio.create_subprocess_shell("true", shell=False)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="no_such_keyword"):
            await asyncio.create_subprocess_exec("true", no_such_keyword=1)
        with pytest.raises(TypeError):
            await asyncio.create_subprocess_exec("true", 1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'program'"):
            loop.subprocess_exec(asyncio.SubprocessProtocol)
        with pytest.raises(TypeError, match="takes 3 positional arguments but 4 were given"):
            loop.subprocess_shell(asyncio.SubprocessProtocol, "true", "more")

    before = descriptors()
    run(main())
    gc.collect()
    assert descriptors() == before


def test_programs_that_cannot_be_started(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("no program")

    async def main() -> None:
        for command, error in (("/no/such/program", FileNotFoundError), (str(script), PermissionError)):
            with pytest.raises(error) as caught:
                await asyncio.create_subprocess_exec(command, stdin=PIPE, stdout=PIPE, stderr=PIPE)
            assert caught.value.filename == command
        with pytest.raises(FileNotFoundError) as caught:
            await asyncio.create_subprocess_exec("true", cwd=tmp_path / "missing")
        assert caught.value.filename == tmp_path / "missing"

    before, children_before = descriptors(), children()
    run(main())
    gc.collect()
    assert descriptors() == before
    assert children() == children_before


def test_a_popen_that_was_replaced_is_used(run: Run) -> None:
    made: list[Any] = []

    class Popen(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            made.append(arguments[0])
            super().__init__(*arguments, **options)

    async def main() -> None:
        with mock.patch("subprocess.Popen", Popen):
            process = await asyncio.create_subprocess_exec("true")
        assert await process.wait() == 0
        with mock.patch("subprocess.Popen", side_effect=LookupError("no")), pytest.raises(LookupError, match="no"):
            await asyncio.create_subprocess_exec("true")

    run(main())
    assert made == [("true",)]


def test_signals(run: Run) -> None:
    async def main() -> None:
        for method, expected in (("terminate", -15), ("kill", -9)):
            process = await asyncio.create_subprocess_exec("sleep", "60")
            getattr(process, method)()
            assert await process.wait() == expected
            with pytest.raises(ProcessLookupError) if process._transport._proc is None else contextlib.nullcontext():  # type: ignore[attr-defined]
                getattr(process, method)()
        process = await asyncio.create_subprocess_exec("sleep", "60")
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), 0.05)
        process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGCONT)
        assert await process.wait() == -signal.SIGUSR1

    run(main())


def test_communicate_with_a_timeout(run: Run) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        assert process.stdin is not None
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), 0.05)
        assert await process.communicate(b"late" * 100_000) == (b"late" * 100_000, None)
        assert process.returncode == 0
        process = await asyncio.create_subprocess_exec("sleep", "60", stdout=PIPE)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(process.communicate(), 0.05)
        process.kill()
        assert await process.communicate() == (b"", None)
        assert process.returncode == -9

    run(main())


def test_many_waiters(run: Run) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec("sleep", "0.05")
        assert await asyncio.gather(*(process.wait() for _ in range(20))) == [0] * 20
        assert await process.wait() == 0

    run(main())


def test_many_at_once(run: Run) -> None:
    async def one(number: int) -> tuple[int, bytes]:
        process = await asyncio.create_subprocess_shell(f"echo {number}; exit {number % 5}", stdout=PIPE)
        data, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, data

    async def main() -> list[tuple[int, bytes]]:
        return await asyncio.gather(*(one(number) for number in range(100)))

    before, children_before = descriptors(), children()
    threads = threading.active_count()
    assert run(main()) == [(number % 5, b"%d\n" % number) for number in range(100)]
    gc.collect()
    assert descriptors() == before
    assert threading.active_count() == threads
    assert children() == children_before


def test_cancelled_while_others_are_started(run: Run) -> None:
    """Whoever gives up while it waits for its turn starts nothing and holds up nobody."""

    async def main() -> None:
        tasks = [asyncio.create_task(output("true")) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
        assert results[1::2] == [b""] * 10
        assert await output("echo", "next") == b"next\n"

    before = descriptors()
    run(main())
    gc.collect()
    assert descriptors() == before


def test_several_loops_in_several_threads(loop_factory: Callable[[], Loop]) -> None:
    results: list[list[bytes]] = []

    async def main(name: str) -> list[bytes]:
        return await asyncio.gather(*(output("echo", f"{name} {number}") for number in range(10)))

    def work(name: str) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            results.append(runner.run(main(name)))

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == [[f"{name} {number}\n".encode() for number in range(10)] for name in "abcd"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a thread of asyncio's own watcher may reap it first")
def test_a_child_that_somebody_else_reaped(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec("sleep", "60")
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED)
        assert await process.wait() == 255

    run(main())
    assert [record.levelname for record in caplog.records if "report returncode 255" in record.getMessage()] == ["WARNING"]


def test_a_child_that_outlives_its_loop(loop: Loop) -> None:
    async def start() -> Any:
        return await asyncio.create_subprocess_exec("sleep", "60", stdout=PIPE)

    before = descriptors()
    process = loop.run_until_complete(start())
    pid = process.pid
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        process._transport.close()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(process.wait())
        loop.close()
        del process
        gc.collect()
    assert len(descriptors()) < len(before)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_debug_log(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "asyncio")

    async def main() -> None:
        process = await asyncio.create_subprocess_exec("true", "secret", stdout=PIPE, stderr=subprocess.STDOUT)
        await process.communicate()
        process = await asyncio.create_subprocess_shell("exit 4", stdin=subprocess.DEVNULL, stderr=PIPE)
        await process.communicate()

    run(main(), debug=True)
    lines = [record.getMessage() for record in caplog.records]
    assert "execute program 'true' stdout=stderr=<pipe>" in lines
    assert f"run shell command 'exit 4' stdin={subprocess.DEVNULL} stderr=<pipe>" in lines
    assert any(re.match(r"execute program 'true': <\w*SubprocessTransport (closed )?pid=\d+ ", line) for line in lines)
    assert any(line.startswith("process 'true' created: pid ") for line in lines)
    assert any("exited with return code 4" in line for line in lines)
    assert not any("secret" in line for line in lines)


def test_the_loop_stands_still_for_one_start_at_most() -> None:
    """ioxide alone: asyncio starts all of them in one turn (docs/differences.md)."""
    import ioxide

    turns: list[int] = []
    starts: list[int] = []
    real = subprocess.Popen

    def popen(*arguments: Any, **options: Any) -> Any:
        starts.append(turns[-1])
        return real(*arguments, **options)

    async def count() -> None:
        while True:
            turns.append(len(turns))
            await asyncio.sleep(0)

    async def main() -> None:
        counting = asyncio.create_task(count())
        await asyncio.sleep(0)
        with mock.patch("subprocess.Popen", popen):
            await asyncio.gather(*(output("true") for _ in range(20)))
        counting.cancel()

    with asyncio.Runner(loop_factory=ioxide.new_event_loop) as runner:
        runner.run(main())
    assert len(starts) == 20 == len(set(starts))


def test_an_overridden_method_is_honoured(loop_factory: Callable[[], Loop]) -> None:
    probe = loop_factory()
    probe.close()
    calls: list[Any] = []

    class Own(type(probe)):  # type: ignore[misc]
        async def _make_subprocess_transport(self, *arguments: Any, **options: Any) -> Any:
            calls.append((arguments[1:3], options))
            return await super()._make_subprocess_transport(*arguments, **options)

    with contextlib.closing(Own()) as loop:
        assert loop.run_until_complete(output("true", cwd="/")) == b""
    assert calls == [((("true",), False), {"cwd": "/"})]


@NEEDS_POLICY
def test_a_watcher_that_the_program_has_set(loop: Loop) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)

        added: list[int] = []

        class Own(asyncio.ThreadedChildWatcher):
            def add_child_handler(self, pid: int, callback: Any, *arguments: Any) -> None:
                added.append(pid)
                super().add_child_handler(pid, callback, *arguments)

        watcher = Own()
        asyncio.set_child_watcher(watcher)
        try:

            async def main() -> int:
                process = await asyncio.create_subprocess_exec("true")
                await process.wait()
                return process.pid

            assert [loop.run_until_complete(main())] == added
        finally:
            asyncio.set_child_watcher(None)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="loops have a watcher of their own since Python 3.14")
def test_a_watcher_of_the_loop(loop: Any) -> None:
    assert type(loop._watcher).__name__ == "_PidfdChildWatcher"
    added: list[int] = []

    class Own(asyncio.unix_events._ThreadedChildWatcher):  # type: ignore[name-defined,misc]
        def add_child_handler(self, pid: int, callback: Any, *arguments: Any) -> None:
            added.append(pid)
            super().add_child_handler(pid, callback, *arguments)

    loop._watcher = Own()

    async def main() -> int:
        process = await asyncio.create_subprocess_exec("true")
        await process.wait()
        return process.pid

    assert [loop.run_until_complete(main())] == added
