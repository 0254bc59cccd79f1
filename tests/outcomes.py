"""What programs did, in a form that can be compared, and the same program on every side.

Invariants
1. An exception is shown with all that Python knows of where it came from: context, cause, members, texts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from sides import SIDES, Side


def shown(error: BaseException | None) -> Any:
    """An exception as tuples and texts (1)."""
    if error is None:
        return None
    members = [shown(member) for member in error.exceptions] if isinstance(error, BaseExceptionGroup) else None
    context, cause = shown(error.__context__), shown(error.__cause__)
    return type(error).__name__, str(error), members, context, cause, error.__suppress_context__


async def outcome(awaitable: Awaitable[Any]) -> Any:
    """What awaiting it comes to: the result, or the exception as `shown` shows it."""
    try:
        return await awaitable
    except BaseException as error:
        return shown(error)


def same_on_all_sides(main: Callable[[Side], Coroutine[Any, Any, Any]]) -> Any:
    """What a program does with asyncio's names on asyncio's loop; every other side must do the same."""
    expected = SIDES["asyncio"].run(main(SIDES["asyncio"]))
    for name, side in SIDES.items():
        assert side.run(main(side)) == expected, name
    return expected
