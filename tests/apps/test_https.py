"""aiohttp, httpx and websockets over TLS, both ends of each, with a private certificate authority."""

from __future__ import annotations

from collections.abc import Callable

from certificates import Authority

PACKAGES = ["aiohttp", "httpx", "websockets"]


def test_https_and_secure_web_sockets(authority: Authority, same_on_both: Callable[..., list[str]]) -> None:
    assert same_on_both("https_both_ends.py", str(authority.folder)) == [
        "aiohttp True True",
        "aiohttp at once True",
        "aiohttp refuses SSLCertVerificationError",
        "httpx True",
        "httpx refuses True",
        "websockets text",
        "websockets True",
        "websockets closed 1000",
    ]
