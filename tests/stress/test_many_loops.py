"""Several loops in several threads at once: each does its own work, and they call each other."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

THREADS = 8
PATIENCE_SECONDS = 60


async def work(number: int) -> int:
    """Tasks, timers, sockets and a thread, and the sum of what they returned."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()

    async def ask(value: int) -> int:
        reader, writer = await asyncio.open_connection(*address)
        for _ in range(20):
            writer.write(b"%d\n" % value)
            assert await reader.readline() == b"%d\n" % value
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.001)
        return value

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        values = await asyncio.gather(*(ask(number * 100 + index) for index in range(20)))
    return sum(values) + await asyncio.to_thread(int, number)


def test_each_thread_runs_its_own_loop(loop_factory: LoopFactory) -> None:
    def run(number: int) -> int:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            loops.append(id(runner.get_loop()))
            started.wait(PATIENCE_SECONDS)
            return runner.run(work(number))

    loops: list[int] = []
    started = threading.Barrier(THREADS)
    with ThreadPoolExecutor(THREADS) as executor:
        results = list(executor.map(run, range(THREADS)))
    assert results == [sum(number * 100 + index for index in range(20)) + number for number in range(THREADS)]
    assert len(set(loops)) == THREADS


def test_loops_call_each_other(loop_factory: LoopFactory) -> None:
    """A token goes round all loops a thousand times, each handing it to the next from its own thread."""
    rounds = 1000
    loops = [loop_factory() for _ in range(THREADS)]
    threads = [threading.Thread(target=loop.run_forever, daemon=True) for loop in loops]
    finished: concurrent.futures.Future[list[int]] = concurrent.futures.Future()
    visits = [0] * THREADS

    def visit(position: int, left: int) -> None:
        visits[position] += 1
        if left == 0:
            finished.set_result(visits)
            return
        following = (position + 1) % THREADS
        loops[following].call_soon_threadsafe(visit, following, left - 1)

    for thread in threads:
        thread.start()
    loops[0].call_soon_threadsafe(visit, 0, rounds * THREADS - 1)
    assert finished.result(PATIENCE_SECONDS) == [rounds] * THREADS
    for loop, thread in zip(loops, threads, strict=True):
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE_SECONDS)
        loop.close()


def test_many_threads_call_one_loop(loop_factory: LoopFactory) -> None:
    """No call is lost and the calls of one thread keep their order."""
    calls = 5000
    received: dict[int, list[int]] = {number: [] for number in range(THREADS)}
    loop = loop_factory()
    runner = threading.Thread(target=loop.run_forever, daemon=True)
    runner.start()

    def call(number: int) -> int:
        for value in range(calls):
            loop.call_soon_threadsafe(received[number].append, value)
        return asyncio.run_coroutine_threadsafe(asyncio.sleep(0, number), loop).result(PATIENCE_SECONDS)

    with ThreadPoolExecutor(THREADS) as executor:
        assert list(executor.map(call, range(THREADS))) == list(range(THREADS))
    loop.call_soon_threadsafe(loop.stop)
    runner.join(PATIENCE_SECONDS)
    loop.close()
    assert received == {number: list(range(calls)) for number in range(THREADS)}


def test_one_loop_runs_in_one_thread_after_another(loop_factory: LoopFactory) -> None:
    loop = loop_factory()
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        for executor in (one, other, one):
            assert executor.submit(loop.run_until_complete, asyncio.sleep(0.001, "slept")).result() == "slept"
    loop.close()


def test_a_loop_runs_in_one_thread_at_a_time(loop_factory: LoopFactory) -> None:
    loop = loop_factory()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(PATIENCE_SECONDS)
    with pytest.raises(RuntimeError, match=r"^This event loop is already running$"):
        loop.run_until_complete(loop.create_future())
    with pytest.raises(RuntimeError, match=r"^Cannot close a running event loop$"):
        loop.close()
    loop.call_soon_threadsafe(loop.stop)
    thread.join(PATIENCE_SECONDS)
    loop.close()
