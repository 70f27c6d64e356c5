"""Memory in large pages, for what every step reads all of: small ones cost a tenth, and more where
reads jump about."""

from __future__ import annotations

import math
import mmap

import torch


def empty(size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Zeros that are made when they are first touched; the kernel may decline the large pages."""
    num_bytes = math.prod(size) * dtype.itemsize
    memory = mmap.mmap(-1, max(num_bytes, 1))
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype, count=math.prod(size)).view(size)


class Slabs:
    """Many pieces, side by side in memory that is never given back."""

    _SLAB_BYTES = 64 << 20
    _ALIGNMENT = 32
    """In numbers: a line of the cache."""

    def __init__(self) -> None:
        self._slab = torch.empty(0, dtype=torch.bfloat16)
        self._used = 0

    def take(self, size: int) -> torch.Tensor:
        """bfloat16 [size]"""
        if self._used + size > len(self._slab):
            num_bytes = max(2 * size, self._SLAB_BYTES)
            self._slab, self._used = empty((num_bytes // 2,), torch.bfloat16), 0
        begin, self._used = self._used, self._used + -(-size // self._ALIGNMENT) * self._ALIGNMENT
        return self._slab[begin : begin + size]
