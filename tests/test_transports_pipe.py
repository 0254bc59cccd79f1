"""The transports of pipes, both ends: what asyncio's do, on both loops.

Invariants
1. The other end of a pipe is a plain descriptor that the test reads and writes itself.
2. Whatever a transport is given is closed by it, once; a test closes only its own end.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import io
import os
import pty
import stat
import tty
import warnings
from pathlib import Path
from typing import Any

import pytest

import ioxide
from pipe_ends import BACKLOG, drain, ends, is_open, read_pipe, settle, write_pipe
from recorder import MEGABYTE, Recorder, Reports


@pytest.mark.parametrize("method", ["connect_read_pipe", "connect_write_pipe"])
def test_a_file_is_no_pipe(run: Any, tmp_path: Path, method: str) -> None:
    async def main() -> str:
        with open(tmp_path / "file", "w+b") as file:
            with pytest.raises(ValueError) as raised:
                await getattr(asyncio.get_running_loop(), method)(Recorder, file)
            assert not file.closed
        return str(raised.value)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = run(main())
    assert (
        text
        == {
            "connect_read_pipe": "Pipe transport is for pipes/sockets only.",
            "connect_write_pipe": "Pipe transport is only for pipes, sockets and character devices",
        }[method]
    )


def test_a_fifo_carries_bytes_between_two_transports(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "fifo"
        os.mkfifo(path)
        reader, writer = Recorder(), Recorder()
        reading = io.FileIO(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
        await read_pipe(reader, reading)
        transport = await write_pipe(writer, io.FileIO(path, "wb"))
        transport.write(MEGABYTE)
        transport.close()
        await reader.until_called("connection_lost")
        assert reader.received == MEGABYTE and "connection_lost" in writer.names
        assert stat.S_ISFIFO(path.stat().st_mode)

    run(main())


def test_a_terminal_is_written_and_read(run: Any) -> None:
    async def main() -> None:
        master, slave = pty.openpty()
        tty.setraw(slave)
        reader, writer = Recorder(), Recorder()
        await read_pipe(reader, io.FileIO(os.dup(slave), "rb"))
        transport = await write_pipe(writer, io.FileIO(master, "wb"))
        transport.write(b"typed ")
        transport.write(b"words")
        await reader.until(lambda: reader.received == b"typed words")
        transport.close()
        await writer.until_called("connection_lost")
        os.close(slave)
        await reader.until_called("connection_lost")

    run(main())


def test_the_null_device_takes_everything(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport = await write_pipe(protocol, io.FileIO(os.devnull, "wb"))
        transport.write(MEGABYTE)
        assert transport.get_write_buffer_size() == 0
        transport.close()
        assert await protocol.until_called("connection_lost") is None

    run(main())


@pytest.mark.parametrize("end", [0, 1])
def test_a_pipe_becomes_non_blocking(run: Any, end: int) -> None:
    async def main() -> None:
        pipes = ends()
        connect = (read_pipe, write_pipe)[end]
        assert os.get_blocking(pipes[end].fileno())
        protocol = Recorder()
        transport = await connect(protocol, pipes[end])
        assert not os.get_blocking(pipes[end].fileno())
        transport.close()
        await protocol.until_called("connection_lost")
        pipes[1 - end].close()

    run(main())


@pytest.mark.parametrize("end", [0, 1])
def test_the_repr_tells_the_state(run: Any, end: int) -> None:
    async def main() -> list[str]:
        pipes = ends()
        number = pipes[end].fileno()
        protocol = Recorder()
        transport = await (read_pipe, write_pipe)[end](protocol, pipes[end])

        def shown() -> str:
            return repr(transport).replace(type(transport).__name__, "T").replace(f"fd={number}", "fd=N")

        seen = [shown()]
        if end == 1:
            transport.write(bytes(BACKLOG))
            seen.append(shown().replace(str(transport.get_write_buffer_size()), "SIZE"))
        transport.close()
        seen.append(shown().replace(str(BACKLOG - 65536), "SIZE"))
        if end == 1:
            await drain(pipes[0])
        await protocol.until_called("connection_lost")
        seen.append(shown())
        pipes[1 - end].close()
        return seen

    assert run(main()) == (
        ["<T fd=N polling>", "<T closing fd=N idle>", "<T closed fd=N closed>"]
        if end == 0
        else [
            "<T fd=N idle bufsize=0>",
            "<T fd=N polling bufsize=SIZE>",
            "<T closing fd=N polling bufsize=SIZE>",
            "<T closed fd=N closed>",
        ]
    )


@pytest.mark.parametrize("end", [0, 1])
def test_a_transport_that_is_dropped_warns_and_closes(loop: asyncio.AbstractEventLoop, end: int) -> None:
    pipes = ends()
    protocol = Recorder()

    async def open_transport() -> None:
        await (read_pipe, write_pipe)[end](protocol, pipes[end])

    loop.run_until_complete(open_transport())
    loop.close()
    with pytest.warns(ResourceWarning, match="unclosed transport <") as caught:
        protocol.calls.clear()
        protocol.transport = None
        gc.collect()
    assert [str(warning.message) for warning in caught if "open>" in str(warning.message)]
    assert pipes[end].closed
    pipes[1 - end].close()


@pytest.mark.parametrize("end", [0, 1])
def test_a_cancelled_connect_closes_the_pipe(run: Any, end: int) -> None:
    async def main() -> None:
        pipes = ends()
        loop = asyncio.get_running_loop()
        connect = (loop.connect_read_pipe, loop.connect_write_pipe)[end]
        protocol = Recorder()
        task = asyncio.create_task(connect(lambda: protocol, pipes[end]))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await protocol.until_called("connection_lost")
        assert pipes[end].closed
        pipes[1 - end].close()

    run(main())


@pytest.mark.parametrize("end", [0, 1])
def test_a_factory_that_fails_leaves_the_pipe_alone(run: Any, end: int) -> None:
    async def main() -> None:
        pipes = ends()
        loop = asyncio.get_running_loop()

        def factory() -> Recorder:
            raise ValueError("no protocol")

        with pytest.raises(ValueError, match="no protocol"):
            await (loop.connect_read_pipe, loop.connect_write_pipe)[end](factory, pipes[end])
        assert not pipes[end].closed and os.get_blocking(pipes[end].fileno())
        for pipe in pipes:
            pipe.close()

    run(main())


@pytest.mark.parametrize("end", [0, 1])
def test_an_exception_of_connection_made_is_reported(run: Any, end: int) -> None:
    async def main() -> list[str]:
        reports = Reports()
        pipes = ends()
        protocol = Recorder(connection_made=ValueError("made"), connection_lost=ValueError("lost"))
        transport = await (read_pipe, write_pipe)[end](protocol, pipes[end])
        transport.close()
        await protocol.until_called("connection_lost")
        await settle()
        assert pipes[end].closed
        pipes[1 - end].close()
        return [str(report["exception"]) for report in reports]

    assert run(main()) == ["made", "lost"]


def test_a_number_that_is_somebody_elses_by_now_is_left_alone() -> None:
    """The program closes a pipe behind its transport's back, and the number is given to another one, which asyncio's
    own transport would deafen: a test of ioxide alone."""

    async def main() -> None:
        reading, writing = ends()
        number = reading.fileno()
        protocol = Recorder()
        transport = await read_pipe(protocol, reading)
        transport.pause_reading()
        reading.close()
        other_reading, other_writing = ends()
        if other_reading.fileno() != number:
            os.dup2(other_reading.fileno(), number)
            other_reading.close()
            other_reading = io.FileIO(number, "rb")
        other = Recorder()
        await read_pipe(other, other_reading)
        transport.close()
        await protocol.until_called("connection_lost")
        other_writing.write(b"still heard")
        await other.until(lambda: other.received == b"still heard")
        assert is_open(number)
        other_writing.close()
        await other.until_called("connection_lost")
        writing.close()

    with asyncio.Runner(loop_factory=ioxide.new_event_loop) as runner:
        runner.run(main())


def test_callbacks_run_in_the_context_of_the_connection(run: Any) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")
    seen: list[str] = []

    async def main() -> None:
        variable.set("inside")
        reading, writing = ends()
        protocol = Recorder(data_received=lambda _: seen.append(variable.get()))
        await read_pipe(protocol, reading)
        writing.write(b"x")
        await protocol.until_called("data_received")
        writing.close()
        await protocol.until_called("connection_lost")

    run(main())
    assert seen == ["inside"]
