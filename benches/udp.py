"""Claim: a UDP echo on ioxide costs at most 1.2 times the CPU of a C epoll loop, per datagram.

As echo.py, whose method, figures and options it has, for the kinds of servers in echo_server.DATAGRAM_KINDS. The limit
(c/echo_epoll.c) receives and sends one datagram a system call until nothing waits.

Invariants:
 1. Fewer datagrams are under way than fit into the server's receive buffer: none is lost, and a lost one ends the run.
"""

from __future__ import annotations

import sys

import echo
from echo_server import DATAGRAM_KINDS

PEERS = 50


def main() -> int:
    parser = echo.arguments(__doc__)
    parser.set_defaults(family="udp", connections=PEERS)
    return echo.run(parser.parse_args(), DATAGRAM_KINDS, (PEERS, 1024))


if __name__ == "__main__":
    sys.exit(main())
