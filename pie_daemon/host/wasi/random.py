"""wasi:random: all of it from the operating system."""

from __future__ import annotations

import os

from pie_daemon.errors import PieError
from pie_daemon.host.abi import Interface

_MAX_BYTES = 1 << 20


def _random_bytes(length: int) -> bytes:
    if length > _MAX_BYTES:
        raise PieError("invalid-argument", f"at most {_MAX_BYTES} random bytes at once")
    return os.urandom(length)


def _random_u64() -> int:
    return int.from_bytes(os.urandom(8), "little")


INTERFACES = [
    Interface(
        "wasi:random/random@0.2.0",
        {"get-random-bytes": _random_bytes, "get-random-u64": _random_u64},
    ),
    Interface(
        "wasi:random/insecure@0.2.0",
        {"get-insecure-random-bytes": _random_bytes, "get-insecure-random-u64": _random_u64},
    ),
    Interface(
        "wasi:random/insecure-seed@0.2.0",
        {"insecure-seed": lambda: (_random_u64(), _random_u64())},
    ),
]
