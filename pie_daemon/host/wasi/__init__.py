"""The host's own WASI 0.2, so that every wait of a program goes through its mailbox.

Clocks, random numbers, environment and output work; files and sockets are refused. Any patch
version of WASI 0.2 is served.
"""

from __future__ import annotations

from pie_daemon.host.wasi import cli, clocks, poll, random, refused, streams

INTERFACES = [
    *poll.INTERFACES,
    *streams.INTERFACES,
    *clocks.INTERFACES,
    *random.INTERFACES,
    *cli.INTERFACES,
    *refused.INTERFACES,
]
