"""Packed bits as run lengths, the way masks cross the border to a program."""

from __future__ import annotations


def runs_of(bits: bytes, num_bits: int) -> list[int]:
    """Lengths of runs in turn, the FIRST one of zeros (it may be 0), which cover all the bits."""
    import numpy as np

    packed = np.frombuffer(bits, np.uint8)
    unpacked = np.unpackbits(packed, count=num_bits, bitorder="little")
    borders = np.flatnonzero(np.diff(unpacked, prepend=np.uint8(0))).tolist()
    return [end - start for start, end in zip([0, *borders], [*borders, num_bits], strict=True)]
