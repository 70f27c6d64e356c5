"""Bit rows as programs write them: lengths of runs in turn, the FIRST of which is FALSE."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

from pie_daemon.errors import PieError


def packed(runs: Sequence[int], max_bits: int, what: str) -> tuple[bytes, int]:
    """Bit i % 8 of byte i // 8 is bit i of the row; and how many bits it has.

    Raises:
        PieError: invalid-argument, when it has more than `max_bits`.
    """
    num_bits = sum(runs)
    if num_bits > max_bits or len(runs) > 2 * max_bits + 2:
        raise PieError(
            "invalid-argument",
            f"{what} has {num_bits} bits in {len(runs)} runs; {max_bits} bits are the most",
        )
    text = "".join(digit * run for digit, run in zip(cycle("01"), runs, strict=False))
    # Highest bit first is what `int` reads, in time linear in the digits for a power of two.
    return int(text[::-1] or "0", 2).to_bytes(-(-num_bits // 8), "little"), num_bits
