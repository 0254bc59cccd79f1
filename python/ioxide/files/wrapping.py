"""`wrap`: a function that blocks as a coroutine function, with aiofiles' `loop` and `executor` arguments."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import Any

from ioxide._ioxide import _run_in_pool as run_in_pool

__all__ = ("wrap",)


def wrap(function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """A coroutine function that runs `function` on ioxide's pool, or in the `executor` that a call names."""

    @wraps(function)
    async def run(*arguments: Any, loop: Any = None, executor: Any = None, **keywords: Any) -> Any:
        call = partial(function, *arguments, **keywords)
        if executor is not None:
            return await (loop or asyncio.get_running_loop()).run_in_executor(executor, call)
        return await run_in_pool(call)

    return run
