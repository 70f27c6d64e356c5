"""wasi:clocks: the time, and timers that end when the instance is stopped."""

from __future__ import annotations

import time

from pie_daemon.host.abi import Interface
from pie_daemon.host.wasi.poll import Timer

_NS_PER_S = 1_000_000_000


def _datetime(nanoseconds: int) -> dict[str, int]:
    return {"seconds": nanoseconds // _NS_PER_S, "nanoseconds": nanoseconds % _NS_PER_S}


INTERFACES = [
    Interface(
        "wasi:clocks/monotonic-clock@0.2.0",
        {
            "now": time.monotonic_ns,
            "resolution": lambda: 1,
            "subscribe-instant": Timer,
            "subscribe-duration": lambda duration_ns: Timer(time.monotonic_ns() + duration_ns),
        },
    ),
    Interface(
        "wasi:clocks/wall-clock@0.2.0",
        {"now": lambda: _datetime(time.time_ns()), "resolution": lambda: _datetime(1)},
    ),
]
