"""DNS over UDP: a client and a server of our own, with real messages."""

from __future__ import annotations

from collections.abc import Callable

PACKAGES: list[str] = []


def test_dns_over_udp(same_on_both: Callable[..., list[str]]) -> None:
    assert same_on_both("dns_over_udp.py") == [
        "one ['192.0.2.1']",
        "text ['hello there']",
        "many 20",
        "missing ['error 3']",
        "refused ['error 5']",
        "slow ['192.0.2.9'] 2",
        "at once 200",
        "gone ['ConnectionRefusedError']",
        "lost None",
        "tasks left 0",
    ]
