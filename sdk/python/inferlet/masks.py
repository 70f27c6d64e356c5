"""Bit rows as the host takes them: lengths of runs in turn, the FIRST of which is FALSE.

`[0, n]` is n times true, `[n]` is n times false, `[2, 3]` is two false and then three true.
"""

from __future__ import annotations

from collections.abc import Iterable


def runs(bits: Iterable[bool]) -> list[int]:
    """Of a row of booleans."""
    lengths = [0]
    last = False
    for bit in bits:
        if bool(bit) is not last:
            last = not last
            lengths.append(0)
        lengths[-1] += 1
    return lengths


def runs_of(places: Iterable[int], length: int) -> list[int]:
    """Of a row of `length` bits that are true at these places."""
    lengths: list[int] = []
    end = 0
    for place in sorted(set(places)):
        if not 0 <= place < length:
            raise ValueError(f"place {place} is outside [0, {length})")
        if place > end or not lengths:
            lengths += [place - end, 0]
        lengths[-1] += 1
        end = place + 1
    if end < length:
        lengths.append(length - end)
    return lengths


def bits(lengths: Iterable[int]) -> list[bool]:
    """The row again."""
    row: list[bool] = []
    for number, length in enumerate(lengths):
        row += [number % 2 == 1] * length
    return row
