"""Pipelines of child processes that move 100 MB each, by streams, by a pipe from child to child, and by a protocol.

Every way ends in a SHA-256 of what arrived, made by the program or by `sha256sum`.
"""

import asyncio
import hashlib
import os
import random
import sys
from asyncio.subprocess import PIPE

CHUNK = random.Random(1).randbytes(1_000_000)
CHUNKS = 100


def expected() -> str:
    digest = hashlib.sha256()
    for _ in range(CHUNKS):
        digest.update(CHUNK)
    return digest.hexdigest()


async def feed(writer: asyncio.StreamWriter) -> None:
    for _ in range(CHUNKS):
        writer.write(CHUNK)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def by_streams() -> str:
    """This program writes to one child and reads from another; two cats and a tee are between them."""
    first = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
    last = await asyncio.create_subprocess_shell("tee /dev/null | cat", stdin=PIPE, stdout=PIPE)
    assert first.stdin and first.stdout and last.stdin and last.stdout

    async def between() -> None:
        while data := await first.stdout.read(1 << 20):
            last.stdin.write(data)
            await last.stdin.drain()
        last.stdin.close()
        await last.stdin.wait_closed()

    async def end() -> str:
        digest = hashlib.sha256()
        while data := await last.stdout.read(1 << 18):
            digest.update(data)
        return digest.hexdigest()

    _, _, found = await asyncio.gather(feed(first.stdin), between(), end())
    assert await first.wait() == await last.wait() == 0
    return found


async def from_child_to_child() -> str:
    """The children share pipes; this program only feeds the first and reads the sum of the last."""
    read, write = os.pipe()
    first = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=write)
    os.close(write)
    last = await asyncio.create_subprocess_exec("sha256sum", stdin=read, stdout=PIPE)
    os.close(read)
    assert first.stdin
    _, (output, _) = await asyncio.gather(feed(first.stdin), last.communicate())
    assert await first.wait() == 0 and last.returncode == 0
    return output.split()[0].decode()


async def by_communicate() -> str:
    child = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
    output, _ = await child.communicate(CHUNK * CHUNKS)
    assert child.returncode == 0
    return hashlib.sha256(output).hexdigest()


class Digest(asyncio.SubprocessProtocol):
    """Reads slowly at times: flow control holds the children back, not the loop."""

    def __init__(self, ended: asyncio.Future[None]) -> None:
        self.digest = hashlib.sha256()
        self.ended = ended
        self.count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self.pipe = transport.get_pipe_transport(1)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.digest.update(data)
        self.count += 1
        if self.count % 100 == 0:
            assert isinstance(self.pipe, asyncio.ReadTransport)
            self.pipe.pause_reading()
            asyncio.get_running_loop().call_later(0.001, self.pipe.resume_reading)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(None)


async def by_protocol() -> str:
    loop = asyncio.get_running_loop()
    read, write = os.pipe()
    feeder = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=write)
    os.close(write)
    ended = loop.create_future()
    transport, protocol = await loop.subprocess_exec(lambda: Digest(ended), "cat", stdin=read, stderr=None)
    os.close(read)
    assert feeder.stdin
    await asyncio.gather(feed(feeder.stdin), ended)
    assert await feeder.wait() == transport.get_returncode() == 0
    transport.close()
    return protocol.digest.hexdigest()


async def main() -> None:
    print(type(asyncio.get_running_loop()).__module__)
    before = os.listdir("/proc/self/fd")
    right = expected()
    for way in (by_streams, from_child_to_child, by_communicate, by_protocol):
        print(way.__name__, await way() == right)
    print("four at once", await asyncio.gather(*(from_child_to_child() for _ in range(4))) == [right] * 4)
    print("tasks left", len(asyncio.all_tasks()) - 1)
    print("descriptors left", len(os.listdir("/proc/self/fd")) - len(before))


if __name__ == "__main__":
    asyncio.run(main())
    sys.exit(0)
