"""The transport of a child process: asyncio's surface, the order of the protocol's calls, what closing and signals do, and
what is warned of.

What it leaves to others: how a child begins (test_subprocess_start.py); streams and exits (test_subprocess.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import logging
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

Loop = asyncio.AbstractEventLoop
Run = Callable[..., Any]
PIPE = subprocess.PIPE
base = asyncio.base_subprocess  # type: ignore[attr-defined]


class Notes(asyncio.SubprocessProtocol):
    """Notes every call; `ended` is connection_lost."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.calls.append(("connection_made",))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.calls.append(("pipe_data_received", fd, data))

    def pipe_connection_lost(self, fd: int, exc: BaseException | None) -> None:
        self.calls.append(("pipe_connection_lost", fd, type(exc)))

    def process_exited(self) -> None:
        self.calls.append(("process_exited", self.transport.get_returncode()))

    def connection_lost(self, exc: BaseException | None) -> None:
        self.calls.append(("connection_lost", exc))
        self.ended.set_result(None)


async def start(*command: str, **options: Any) -> tuple[Any, Notes]:
    return await asyncio.get_running_loop().subprocess_exec(Notes, *command, **options)  # type: ignore[return-value]


def test_the_whole_surface(run: Run) -> None:
    """Whatever asyncio's class has, ioxide's has, and what is a coroutine function is one."""

    async def main() -> None:
        transport, protocol = await start("cat")
        for name, member in inspect.getmembers(base.BaseSubprocessTransport, inspect.isfunction):
            own = getattr(transport, name)
            assert callable(own)
            assert inspect.iscoroutinefunction(own) == inspect.iscoroutinefunction(member), name
        for fd, kind in (
            (0, base.WriteSubprocessPipeProto),
            (1, base.ReadSubprocessPipeProto),
            (2, base.ReadSubprocessPipeProto),
        ):
            pipe = transport.get_pipe_transport(fd)
            own = pipe.get_protocol()
            assert isinstance(own, kind) and own.pipe is pipe and own.fd == fd and own.proc is transport
            assert own.disconnected is False
            assert repr(own) == f"<{type(own).__name__} fd={fd} pipe={pipe!r}>"
        for fd in (3, -1, None, "0", 1.5):
            assert transport.get_pipe_transport(fd) is None
        assert transport.get_pipe_transport(1.0) is transport.get_pipe_transport(True) is transport.get_pipe_transport(1)
        assert transport.get_protocol() is protocol and transport.is_closing() is False
        assert transport.get_extra_info("subprocess") is transport._proc
        assert transport.get_extra_info("missing", 5) == 5
        assert list(transport._pipes) == [0, 1, 2] and transport._closed is False
        transport.get_pipe_transport(0).close()
        await protocol.ended
        assert transport._proc is None and transport._loop is None and transport.get_protocol() is None
        assert transport.get_pid() > 0 and transport.get_returncode() == 0
        transport.close()
        assert transport.is_closing() is True

    run(main())


def test_the_repr_in_every_state(run: Run) -> None:
    async def main() -> None:
        transport, protocol = await start("cat", stderr=subprocess.STDOUT)
        name, pid = type(transport).__name__, transport.get_pid()
        pipes = [transport.get_pipe_transport(fd) for fd in (0, 1)]
        assert repr(transport) == f"<{name} pid={pid} running stdin={pipes[0]!r} stdout={pipes[1]!r}>"
        transport.kill()
        await protocol.ended
        assert repr(transport) == f"<{name} pid={pid} returncode=-9 stdin={pipes[0]!r} stdout={pipes[1]!r}>"
        transport.close()
        assert repr(transport).startswith(f"<{name} closed pid={pid} returncode=-9 ")
        transport, protocol = await start("sleep", "60", stdin=None, stdout=None, stderr=None)
        assert repr(transport) == f"<{name} pid={transport.get_pid()} running>"
        transport.kill()
        await protocol.ended
        transport.close()

    run(main())


def test_the_order_of_calls(run: Run) -> None:
    async def main() -> None:
        transport, protocol = await start("sh", "-c", "echo out; echo err >&2; exec 1>&- 2>&-; exit 7")
        await protocol.ended
        transport.close()
        calls = protocol.calls
        assert calls[0] == ("connection_made",) and calls[-1] == ("connection_lost", None)
        for fd, data in ((1, b"out\n"), (2, b"err\n")):
            received, lost = ("pipe_data_received", fd, data), ("pipe_connection_lost", fd, type(None))
            assert calls.index(received) < calls.index(lost)
        assert calls.count(("process_exited", 7)) == 1
        assert {call[0] for call in calls[1:-1]} == {"pipe_data_received", "pipe_connection_lost", "process_exited"}
        assert {call[1] for call in calls if call[0] == "pipe_connection_lost"} == {0, 1, 2}

    run(main())


def test_a_grandchild_keeps_the_pipes_open(run: Run) -> None:
    """process_exited comes at the end of the child, connection_lost at the end of the pipes."""

    async def main() -> None:
        transport, protocol = await start("sh", "-c", "sleep 60 & echo $!", stdin=None, stderr=None)
        while ("process_exited", 0) not in protocol.calls or len(protocol.calls) < 3:
            await asyncio.sleep(0.001)
        assert not protocol.ended.done() and transport.get_returncode() == 0
        (_, _, number), *_ = [call for call in protocol.calls if call[0] == "pipe_data_received"]
        os.kill(int(number), signal.SIGKILL)
        await protocol.ended
        transport.close()

    run(main())


def test_set_protocol_in_the_middle(run: Run) -> None:
    async def main() -> None:
        transport, protocol = await start("cat", stderr=None)
        other = Notes()
        other.transport = transport
        transport.set_protocol(other)
        assert transport.get_protocol() is other
        transport.get_pipe_transport(0).write(b"word")
        transport.get_pipe_transport(0).close()
        await other.ended
        assert protocol.calls == [("connection_made",)]
        assert ("pipe_data_received", 1, b"word") in other.calls
        transport.close()

    run(main())


def test_flow_control_reaches_the_protocol(run: Run) -> None:
    async def main() -> None:
        transport, protocol = await start("sh", "-c", "read go; cat > /dev/null", stderr=None, stdout=None)
        paused: list[str] = []
        resumed = asyncio.Event()
        protocol.pause_writing = lambda: paused.append("pause")  # type: ignore[attr-defined]
        protocol.resume_writing = lambda: (paused.append("resume"), resumed.set())  # type: ignore[attr-defined]
        transport.get_pipe_transport(0).write(b"x" * 500_000)
        assert paused == ["pause"]
        transport.get_pipe_transport(0).write(b"\n")
        await resumed.wait()
        assert paused == ["pause", "resume"]
        transport.get_pipe_transport(0).close()
        await protocol.ended
        transport.close()

    run(main())


def test_a_protocol_that_raises(run: Run) -> None:
    """What a protocol raises goes to the exception handler, and the transport goes on."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        reports: list[str] = []
        loop.set_exception_handler(lambda _, context: reports.append(type(context.get("exception")).__name__))

        class Raises(Notes):
            def pipe_data_received(self, fd: int, data: bytes) -> None:
                super().pipe_data_received(fd, data)
                raise LookupError

            def process_exited(self) -> None:
                super().process_exited()
                raise ArithmeticError

            def connection_lost(self, exc: BaseException | None) -> None:
                super().connection_lost(exc)
                raise KeyError

        transport, protocol = await loop.subprocess_exec(Raises, "echo", "word", stdin=None, stderr=None)
        assert await transport._wait() == 0  # type: ignore[attr-defined]
        await protocol.ended
        await asyncio.sleep(0)
        assert sorted(reports) == ["ArithmeticError", "KeyError", "LookupError"]
        transport.close()

    run(main())


def test_the_end_is_announced_once(run: Run) -> None:
    async def main() -> None:
        transport, protocol = await start("true", stdin=None, stdout=None, stderr=None)
        await protocol.ended
        for wrong in (None, 5):
            with pytest.raises(AssertionError):
                transport._process_exited(wrong)
        with pytest.raises(AssertionError):
            transport._try_finish()
        transport.close()

    run(main())


def test_waiting_for_the_end(run: Run) -> None:
    async def main() -> None:
        transport, protocol = await start("cat", stdout=None, stderr=None)
        waiters = [asyncio.ensure_future(transport._wait()) for _ in range(3)]
        await asyncio.sleep(0)
        for _ in range(50):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(transport._wait(), 0)
        waiters[1].cancel()
        transport.get_pipe_transport(0).close()
        assert await asyncio.gather(*waiters, return_exceptions=True) == [0, mock.ANY, 0]
        assert waiters[1].cancelled()
        await protocol.ended
        assert await transport._wait() == 0
        transport.close()

    run(main())


def test_signals_and_their_errors(run: Run) -> None:
    """As asyncio of the version: after the end nothing, after connection_lost ProcessLookupError."""

    async def main() -> None:
        transport, protocol = await start("cat", stdout=None, stderr=None)
        with pytest.raises((OSError, ValueError)):
            transport.send_signal(9999)
        with pytest.raises(TypeError):
            transport.send_signal("TERM")
        transport.send_signal(0)
        transport.send_signal(signal.SIGTERM)
        transport.kill()
        await protocol.ended
        for method in (transport.kill, transport.terminate, lambda: transport.send_signal(0)):
            with pytest.raises(ProcessLookupError):
                method()
        # where Popen sends the signals, it polls, and may leave nothing to whoever watches the child
        polls = "os" not in base.BaseSubprocessTransport.send_signal.__code__.co_names
        assert transport.get_returncode() in (-15, -9, *((255,) if polls else ()))
        transport.close()

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a thread of asyncio's own watcher may reap it first")
def test_a_child_that_is_gone_but_not_known_to_be(run: Run) -> None:
    """Its number is its own until it is reaped: a signal is no error."""

    async def main() -> None:
        transport, protocol = await start("sleep", "60", stdin=None, stdout=None, stderr=None)
        os.kill(transport.get_pid(), signal.SIGKILL)
        os.waitid(os.P_PID, transport.get_pid(), os.WEXITED | os.WNOWAIT)
        if base.BaseSubprocessTransport.send_signal.__code__.co_names.count("os"):
            # before, Popen polls, and whoever watches the child finds nothing
            transport.send_signal(signal.SIGTERM)
            transport.kill()
        assert await transport._wait() == -9
        await protocol.ended
        transport.close()

    run(main())


def test_close_kills(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        transport, protocol = await start("sleep", "60")
        pipes = [transport.get_pipe_transport(fd) for fd in range(3)]
        transport.close()
        transport.close()
        assert transport.is_closing() and all(pipe.is_closing() for pipe in pipes)
        assert await transport._wait() == -9
        await protocol.ended

    caplog.set_level(logging.WARNING, "asyncio")
    run(main(), debug=True)
    lines = [record.getMessage() for record in caplog.records if "Close running child process: kill" in record.getMessage()]
    assert len(lines) == 1


def test_an_unclosed_transport_is_warned_of(run: Run) -> None:
    async def main() -> int:
        transport, _ = await start("sleep", "60", stdin=None, stdout=None, stderr=None)
        process = transport._proc
        transport.__del__()
        assert transport.is_closing()
        await transport._wait()
        return int(process.returncode)

    with pytest.warns(ResourceWarning, match=r"unclosed transport <\w+ pid=\d+ running>"):
        assert run(main()) == -9


def test_nothing_is_left(run: Run) -> None:
    """Neither descriptors, nor threads, nor objects of a hundred children."""

    async def many() -> None:
        async def one(number: int) -> None:
            process = await asyncio.create_subprocess_exec(
                "sh", "-c", f"cat; exit {number}", stdin=PIPE, stdout=PIPE, stderr=PIPE
            )
            assert await process.communicate(b"word") == (b"word", b"")
            assert process.returncode == number

        await asyncio.gather(*(one(number) for number in range(25)))

    async def main() -> None:
        def transports() -> int:
            gc.collect()
            return sum(isinstance(each, (asyncio.BaseTransport, subprocess.Popen)) for each in gc.get_objects())

        await many()
        before, descriptors = transports(), set(os.listdir("/proc/self/fd"))
        for _ in range(3):
            await many()
        for _ in range(3):
            await asyncio.sleep(0)
        assert transports() == before
        assert set(os.listdir("/proc/self/fd")) == descriptors

    run(main())


def test_overridden_pipe_methods_are_honoured(loop_factory: Callable[[], Loop]) -> None:
    probe = loop_factory()
    probe.close()
    connected: list[Any] = []

    class Own(type(probe)):  # type: ignore[misc]
        async def connect_read_pipe(self, factory: Any, pipe: Any) -> Any:
            result = await super().connect_read_pipe(factory, pipe)
            connected.append(result[1])
            return result

    async def main() -> None:
        transport, protocol = await start("echo", "word")
        await protocol.ended
        assert ("pipe_data_received", 1, b"word\n") in protocol.calls
        transport.close()

    with contextlib.closing(Own()) as loop:
        loop.run_until_complete(main())
    assert [type(each).__name__ for each in connected] == ["ReadSubprocessPipeProto"] * 2


@pytest.mark.skipif(sys.version_info < (3, 14), reason="before, asyncio waits for ever for the end of such a pipe")
def test_a_pipe_that_cannot_be_connected(loop_factory: Callable[[], Loop]) -> None:
    """The child is ended and the error is the caller's."""
    probe = loop_factory()
    probe.close()

    class Own(type(probe)):  # type: ignore[misc]
        async def connect_read_pipe(self, factory: Any, pipe: Any) -> Any:
            raise LookupError("no pipe")

    async def main() -> None:
        with pytest.raises(LookupError, match="no pipe"):
            await start("sleep", "60", stdin=None, stderr=None)

    before = set(os.listdir("/proc/self/fd"))
    with warnings.catch_warnings(), mock.patch.object(sys, "unraisablehook", lambda *_: None):
        warnings.simplefilter("ignore", ResourceWarning)
        with contextlib.closing(Own()) as loop:
            loop.run_until_complete(asyncio.wait_for(main(), 20))
            del loop
        gc.collect()
    assert set(os.listdir("/proc/self/fd")) <= before


def test_a_mocked_popen_is_driven(run: Run) -> None:
    """A Popen that is no Popen: only its attributes count."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        child = subprocess.Popen(["sleep", "60"])
        with mock.patch("subprocess.Popen", return_value=mock.Mock(pid=child.pid, stdin=None, stdout=None, stderr=None)) as popen:
            transport, protocol = await loop.subprocess_exec(Notes, "anything", cwd="/nowhere")
            popen.assert_called_once()
            assert popen.call_args.args == (("anything",),)
            keywords = dict(popen.call_args.kwargs)
        assert keywords.pop("cwd") == "/nowhere" and keywords.pop("bufsize") == 0
        assert keywords == {"shell": False, "stdin": PIPE, "stdout": PIPE, "stderr": PIPE, "universal_newlines": False}
        child.kill()
        while len(protocol.calls) < 2:
            await asyncio.sleep(0.001)
        child.returncode = transport.get_returncode()
        assert transport.get_returncode() == -9
        assert protocol.calls[:2] == [("connection_made",), ("process_exited", -9)]
        with pytest.raises(AttributeError):
            transport.get_pipe_transport(1)  # asyncio expects a pipe that Popen has not made
        transport.close()

    run(main())
