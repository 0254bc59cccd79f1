"""The process that memory.py measures: one loop, told by lines on its standard input what to hold or to do.

usage: memory_subject.py LOOP      each command is answered by one line:
    serve KIND            an echo server of echo_server.py      "listening PORT"
    sleep COUNT           that many tasks in asyncio.sleep(3600), all of them waiting
    cancel                cancels these and waits for them
    cycle KIND COUNT      creates and finishes that many tasks or timers (CYCLES)
    collector on | off    the cyclic garbage collector
    census                collects cyclic garbage, then tells what is held, as JSON

Invariants:
 1. Between two commands it only waits: what the script sees from outside is what the loop and the objects held cost.
 2. It keeps no object of a finished cycle.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections.abc import Awaitable, Callable

import echo_server
import loops
import machine

BATCH = 1000


async def nap() -> None:
    await asyncio.sleep(0)


async def fail() -> None:
    await asyncio.sleep(0)
    raise ValueError("as planned")


async def finished() -> None:
    await asyncio.gather(*[asyncio.create_task(nap()) for _ in range(BATCH)])


async def cancelled() -> None:
    tasks = [asyncio.create_task(asyncio.sleep(3600)) for _ in range(BATCH)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def raised() -> None:
    await asyncio.gather(*[asyncio.create_task(fail()) for _ in range(BATCH)], return_exceptions=True)


async def timed_out() -> None:
    waits = [asyncio.wait_for(asyncio.sleep(3600), 0.001) for _ in range(BATCH)]
    await asyncio.gather(*waits, return_exceptions=True)


async def timers() -> None:
    loop = asyncio.get_running_loop()
    for _ in range(BATCH):
        loop.call_later(3600, nap).cancel()
    await asyncio.sleep(0)


CYCLES: dict[str, Callable[[], Awaitable[None]]] = {
    "finished": finished,
    "cancelled": cancelled,
    "raised": raised,
    "timed_out": timed_out,
    "timers": timers,
}


class Subject:
    def __init__(self) -> None:
        self.sleeping: list[asyncio.Task[None] | None] = []
        self.server: asyncio.Task[None] | None = None

    async def serve(self, kind: str) -> None:
        serve = echo_server.KINDS[kind]
        # The line "listening PORT" is the answer; an error of the server ends this process with its traceback.
        self.server = asyncio.ensure_future(serve(echo_server.listen(["tcp"])))
        await asyncio.sleep(0.1)
        if self.server.done():
            self.server.result()

    async def sleep(self, count: str) -> None:
        # The list has its full size before the first task, so that it does not move while they are counted.
        self.sleeping = [None] * int(count)
        for index in range(int(count)):
            self.sleeping[index] = asyncio.create_task(asyncio.sleep(3600))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        print("ok", flush=True)

    async def cancel(self) -> None:
        for index, task in enumerate(self.sleeping):
            assert task is not None
            task.cancel()
            if index % BATCH == 0:
                await asyncio.sleep(0)
        for index, task in enumerate(self.sleeping):
            assert task is not None
            try:
                await task
            except asyncio.CancelledError:
                self.sleeping[index] = None
        print("ok", flush=True)

    async def cycle(self, kind: str, count: str) -> None:
        for _ in range(int(count) // BATCH):
            await CYCLES[kind]()
        print("ok", flush=True)

    async def collector(self, switch: str) -> None:
        if switch == "off":
            gc.collect()
            gc.disable()
        else:
            gc.enable()
        print("ok", flush=True)

    async def census(self) -> None:
        # The first collection finds what the commands since the last census left; a second one what finalisers freed.
        unreachable = gc.collect()
        gc.collect()
        held = {
            "unreachable": unreachable,
            "objects": len(gc.get_objects()),
            "descriptors": machine.open_descriptors(),
            "resident": machine.resident_bytes(),
        }
        print(json.dumps(held), flush=True)


async def main() -> None:
    loop = asyncio.get_running_loop()
    commands: asyncio.Queue[str] = asyncio.Queue()
    os.set_blocking(0, False)
    # The script sends one command and waits for its answer, so one read is one line.
    loop.add_reader(0, lambda: commands.put_nowait(os.read(0, 4096).decode()))
    subject = Subject()
    while line := await commands.get():
        command, *arguments = line.split()
        await getattr(subject, command)(*arguments)


if __name__ == "__main__":
    loops.run(sys.argv[1], main)
