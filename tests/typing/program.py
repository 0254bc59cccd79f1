"""What a type checker makes of a program that uses ioxide; `make typing` checks it, nobody runs it."""

import asyncio
from collections.abc import Callable
from typing import assert_type

import ioxide


async def answer() -> int:
    return 42


assert_type(ioxide.run(answer()), int)
assert_type(ioxide.run(answer(), debug=True, loop_factory=asyncio.SelectorEventLoop), int)
assert_type(ioxide.new_event_loop(), ioxide.EventLoop)
assert_type(ioxide.__version__, str)

with ioxide.Runner(debug=True) as runner:
    assert_type(runner.run(answer()), int)

with asyncio.Runner(loop_factory=ioxide.new_event_loop) as of_asyncio:
    assert_type(of_asyncio.run(answer()), int)

factory: Callable[[], asyncio.AbstractEventLoop] = ioxide.EventLoop


async def on_the_loop(loop: ioxide.EventLoop) -> None:
    task: asyncio.Task[int] = ioxide.Task(answer(), loop=loop)
    assert_type(await task, int)
    future: asyncio.Future[str] = ioxide.Future(loop=loop)
    future.set_result("done")
    assert_type(await future, str)
    handle: asyncio.Handle = loop.call_soon(print, "soon")
    handle.cancel()
    server: asyncio.AbstractServer = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    server.close()


ioxide.install()
ioxide.uninstall()
