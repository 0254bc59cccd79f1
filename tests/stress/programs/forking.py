"""A process forks while its loop runs. `forking.py SCENARIO`; both sides print what became of them.

The parent must not notice; the child gets a loop of its own, and a clean error where it uses its parent's.
"""

import asyncio
import inspect
import multiprocessing
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Callable

warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what this is about


def in_child(body: Callable[[], object]) -> None:
    """Runs the body in a forked child, prints what it returned or raised, and waits for the child's end."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            print("child:", body(), flush=True)
        except BaseException as error:
            print("child:", "".join(traceback.format_exception_only(error)).strip(), flush=True)
        finally:
            os._exit(0)
    print("child ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


async def works() -> str:
    """Timers, threads, sockets and wake-ups of the loop that runs this."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    await asyncio.sleep(0.01)
    loop = asyncio.get_running_loop()
    woken = loop.create_future()
    threading.Timer(0.05, loop.call_soon_threadsafe, [woken.set_result, None]).start()
    await asyncio.wait_for(woken, 10)
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"it works\n")
        line = await reader.readline()
        writer.close()
    return line.decode().strip()


async def new_loop() -> None:
    in_child(lambda: asyncio.run(works()))
    print("parent:", await works())


async def no_running_loop() -> None:
    in_child(asyncio.get_running_loop)
    print("parent:", await works())


async def parents_loop() -> None:
    """Not in asyncio: there the child takes its parent's events."""
    loop = asyncio.get_running_loop()
    in_child(lambda: loop.add_reader(0, print))
    in_child(loop.close)
    print("parent:", await works())


def parents_idle_loop() -> None:
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        in_child(loop.run_forever)
        coroutine = works()
        in_child(lambda: loop.run_until_complete(coroutine))
        print("parent:", runner.run(coroutine))


async def connections_closed_in_child() -> None:
    """The child closes what it inherited, its transports among it: the parent's are still served."""
    reached = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(writer)
        reached.set()
        while line := await reader.readline():
            writer.write(line.upper())
        writer.close()

    served: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await reached.wait()

        def close_all() -> str:
            writer.transport.abort()
            served[0].transport.abort()
            server.close()
            return asyncio.run(works())

        in_child(close_all)
        writer.write(b"still here\n")
        print("parent:", (await asyncio.wait_for(reader.readline(), 10)).decode().strip())
        writer.close()
    print("parent:", await works())


async def child_leaves_through_the_loop() -> None:
    """sys.exit() in the child unwinds the parent's run in the child."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        sys.exit(7)
    await asyncio.to_thread(os.waitpid, child, 0)
    print("parent:", await works())


async def process_pool() -> None:
    """multiprocessing's fork, whose child runs a loop of its own."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run_and_send, args=[sender])
    process.start()
    print("child:", await asyncio.to_thread(receiver.recv))
    await asyncio.to_thread(process.join)
    print("child ended with", process.exitcode)
    print("parent:", await works())


def run_and_send(sender: object) -> None:
    sender.send(asyncio.run(works()))


def between_runs() -> None:
    """The loop of a Runner is alive but not running."""
    with asyncio.Runner() as runner:
        print("parent:", runner.run(works()))
        in_child(lambda: asyncio.run(works()))
        print("parent:", runner.run(works()))


async def say_which_loop() -> None:
    print(type(asyncio.get_running_loop()).__module__)


asyncio.run(say_which_loop())
scenario = globals()[sys.argv[1]]
if inspect.iscoroutinefunction(scenario):
    asyncio.run(scenario())
else:
    scenario()
