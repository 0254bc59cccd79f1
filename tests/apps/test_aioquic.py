"""aioquic's client and server: QUIC in Python over the loop's datagrams."""

from __future__ import annotations

from collections.abc import Callable

PACKAGES = ["aioquic"]


def test_echo_over_quic(same_on_both: Callable[..., list[str]]) -> None:
    assert same_on_both("quic_echo.py") == ["ping", "streams 20", "closed", "tasks left 0"]
