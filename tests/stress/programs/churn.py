"""Makes and finishes many of one kind of thing, the collector switched off, and prints what is left of them as JSON.

`churn.py KIND COUNT`. The same is done with a tenth before, so that caches, pools and the executor's thread exist.
"""

import asyncio
import gc
import json
import os
import resource
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable

BATCH = 100


async def returning(value: int) -> int:
    return value


async def failing() -> None:
    raise LookupError


async def tasks(count: int) -> None:
    for number in range(count):
        assert await asyncio.create_task(returning(number)) == number


async def groups(count: int) -> None:
    for _ in range(count // BATCH):
        async with asyncio.TaskGroup() as group:
            for number in range(BATCH):
                group.create_task(returning(number))
        await asyncio.gather(*(asyncio.sleep(0) for _ in range(BATCH)))


async def failures(count: int) -> None:
    for _ in range(count):
        try:
            await asyncio.create_task(failing())
        except LookupError as error:
            error.__traceback__ = None  # it names this frame, as it does on any loop


async def cancellations(count: int) -> None:
    for _ in range(count // BATCH):
        sleeping = [asyncio.create_task(asyncio.sleep(3600)) for _ in range(BATCH)]
        await asyncio.sleep(0)
        for task in sleeping:
            task.cancel()
        await asyncio.wait(sleeping)


async def timers(count: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(count // BATCH):
        for number in range(BATCH):
            loop.call_later(0.0001 * number, returning.__class__).cancel()
            loop.call_later(3600, returning.__class__).cancel()
            loop.call_soon(returning.__class__).cancel()
        await asyncio.sleep(0)
        await asyncio.gather(*(asyncio.sleep(0.0001) for _ in range(BATCH)))


async def futures(count: int) -> None:
    loop = asyncio.get_running_loop()
    for number in range(count):
        future = loop.create_future()
        future.add_done_callback(lambda done: None)
        loop.call_soon(future.set_result, number)
        assert await future == number


async def timeouts(count: int) -> None:
    for number in range(count):
        async with asyncio.timeout(3600):
            assert await asyncio.wait_for(returning(number), 3600) == number


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Once(asyncio.Protocol):
    """Says a word, hears it and closes."""

    def __init__(self) -> None:
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        transport.write(b"word")

    def data_received(self, data: bytes) -> None:
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(exc)


async def protocols(count: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=BATCH)
    address = server.sockets[0].getsockname()

    async def one() -> None:
        _, protocol = await loop.create_connection(Once, *address)
        assert await protocol.closed is None

    async with server:
        for _ in range(count // BATCH):
            await asyncio.gather(*(one() for _ in range(BATCH)))


async def streams(count: int) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(4))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, backlog=BATCH)
    address = server.sockets[0].getsockname()

    async def one() -> None:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"word")
        assert await reader.read() == b"word"
        writer.close()
        await writer.wait_closed()

    async with server:
        for _ in range(count // BATCH):
            await asyncio.gather(*(one() for _ in range(BATCH)))


async def sockets(count: int) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0), backlog=BATCH) as listener:
        listener.setblocking(False)

        async def answer() -> None:
            accepted, _ = await loop.sock_accept(listener)
            with accepted:
                await loop.sock_sendall(accepted, await loop.sock_recv(accepted, 100))

        async def ask() -> None:
            with socket.socket() as asking:
                asking.setblocking(False)
                await loop.sock_connect(asking, listener.getsockname())
                await loop.sock_sendall(asking, b"word")
                assert await loop.sock_recv(asking, 100) == b"word"

        for _ in range(count):
            await asyncio.gather(answer(), ask())


async def descriptors(count: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(count):
        one, other = socket.socketpair()
        with one, other:
            readable = loop.create_future()
            loop.add_reader(one, readable.set_result, None)
            loop.add_writer(one, lambda: None)
            other.send(b"x")
            await readable
            loop.remove_reader(one)
            loop.remove_writer(one)


async def threads(count: int) -> None:
    for _ in range(count // BATCH):
        assert await asyncio.gather(*(asyncio.to_thread(abs, -number) for number in range(BATCH))) == list(range(BATCH))


async def careless(count: int) -> None:
    """What must not go unseen: futures that hold themselves, and an open descriptor."""
    for _ in range(count):
        future = asyncio.get_running_loop().create_future()
        future.itself = future
    if count > BATCH * 10:
        os.dup(0)


def loops(count: int) -> None:
    for _ in range(count):
        assert asyncio.run(returning(1)) == 1


WITHOUT_SOCKETS = (tasks, groups, failures, cancellations, timers, futures, timeouts)
KINDS: dict[str, Callable[[int], Awaitable[None] | None]] = {
    kind.__name__: kind
    for kind in (*WITHOUT_SOCKETS, protocols, streams, sockets, descriptors, threads, careless, loops)
}


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def settled() -> None:
    """Lets the last callbacks of closed connections run."""
    for _ in range(5):
        await asyncio.sleep(0.001)


async def churn(kind: Callable[[int], Awaitable[None]], count: int) -> dict[str, object]:
    await kind(count // 10)
    await settled()
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    before = resident_bytes(), open_descriptors(), len(gc.get_objects())
    await kind(count)
    await settled()
    return growth(before)


def growth(before: tuple[int, int, int]) -> dict[str, object]:
    objects = len(gc.get_objects()) - before[2]
    memory, descriptors = resident_bytes() - before[0], open_descriptors() - before[1]
    gc.collect()
    garbage = Counter(type(thing).__qualname__ for thing in gc.garbage)
    return {"memory": memory, "descriptors": descriptors, "objects": objects, "garbage": garbage}


def main() -> None:
    kind, count = KINDS[sys.argv[1]], int(sys.argv[2])
    gc.disable()
    if kind is loops:
        loops(count // 10)
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        before = resident_bytes(), open_descriptors(), len(gc.get_objects())
        loops(count)
        left = growth(before)
    else:
        left = asyncio.run(churn(kind, count))
    gc.set_debug(0)
    gc.garbage.clear()
    print(json.dumps({"loop": type(asyncio.new_event_loop()).__module__, **left}))


main()
