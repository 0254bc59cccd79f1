"""Types of the native module.

Every class is a real subclass of asyncio's at run time and has its methods with the same signatures, so the stubs
say just that. One lie, for the type checker alone: EventLoop derives from AbstractEventLoop, whose methods the checker
takes for abstract; BaseEventLoop declares the same ones as implemented.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, final

_Result = TypeVar("_Result")
_Result_co = TypeVar("_Result_co", covariant=True)

__version__: str

class EventLoop(asyncio.BaseEventLoop):
    def __init__(self) -> None: ...

class Future(asyncio.Future[_Result]): ...
class Task(asyncio.Task[_Result_co]): ...
class Handle(asyncio.Handle): ...
class TimerHandle(asyncio.TimerHandle): ...

class Server(asyncio.Server): ...

class TaskGroup(asyncio.TaskGroup):
    def cancel(self) -> None: ...

@final
class Timeout(asyncio.Timeout): ...  # type: ignore[misc]

def timeout(delay: float | None) -> Timeout: ...
def timeout_at(when: float | None) -> Timeout: ...

class StreamReader(asyncio.StreamReader): ...
class StreamReaderProtocol(asyncio.StreamReaderProtocol): ...
class StreamWriter(asyncio.StreamWriter): ...

_ClientConnected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None]

async def open_connection(
    host: str | None = None, port: int | str | None = None, *, limit: int = 65536, **kwds: Any
) -> tuple[StreamReader, StreamWriter]: ...
async def start_server(
    client_connected_cb: _ClientConnected,
    host: Any = None,
    port: int | str | None = None,
    *,
    limit: int = 65536,
    **kwds: Any,
) -> asyncio.Server: ...
async def open_unix_connection(path: Any = None, *, limit: int = 65536, **kwds: Any) -> tuple[StreamReader, StreamWriter]: ...
async def start_unix_server(
    client_connected_cb: _ClientConnected, path: Any = None, *, limit: int = 65536, **kwds: Any
) -> asyncio.Server: ...
