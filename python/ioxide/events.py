"""asyncio.events on ioxide: `new_event_loop`. What else that module has is asyncio's own, or in `ioxide._ioxide`."""

from __future__ import annotations

from ioxide._ioxide import EventLoop

__all__ = ("new_event_loop",)


def new_event_loop() -> EventLoop:
    """Create and return a new ioxide event loop."""
    return EventLoop()
