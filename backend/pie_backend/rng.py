"""Random numbers that depend on their counter alone, so a draw never depends on the batch."""

from __future__ import annotations

import hashlib
import struct

_MASK = (1 << 64) - 1


def uniform(seed: int, draw: int) -> float:
    """The `draw`-th number of the stream `seed`, in [0, 1) with 53 random bits."""
    counter = struct.pack("<QQ", seed & _MASK, draw & _MASK)
    digest = hashlib.blake2b(counter, digest_size=8).digest()
    return float(int.from_bytes(digest, "little") >> 11) / (1 << 53)
