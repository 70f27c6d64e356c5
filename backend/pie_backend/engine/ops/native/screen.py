"""The likeliest token of each row without all logits, which are a seventh to a quarter of what a
small model reads and computes for a token.

A copy of the head's weights in bytes tells within which bounds each logit is; those that may be the
largest are then computed as the head computes them. The answer is the head's, to the bit.
"""

from __future__ import annotations

from ctypes import c_int64

import torch

from pie_backend.engine.huge_pages import Slabs
from pie_backend.engine.ops.native.library import Screening

_MOST_ROWS = 256
"""At a time: a thread keeps them in its second-level cache."""


class Screen:
    """Implements `Screened`."""

    def __init__(self, kernels: Screening, memory: Slabs, weight: torch.Tensor) -> None:
        """weight bfloat16 [vocab, hidden]"""
        self._weight = weight.contiguous()
        num_out, num_in = self._weight.shape
        self._packed = memory.take(-(-num_out // 32) * 32 * num_in // 2)
        self._bounds = torch.empty(3, num_out)
        at = [self._packed.data_ptr(), *(row.data_ptr() for row in self._bounds)]
        kernels.pack(self._weight.data_ptr(), *at, *self._weight.shape)
        self.weights_at = [self._weight.data_ptr(), *at]
        """The weights, and what is known of them."""
        self._run = kernels.choose

    @staticmethod
    def can_take(weight: torch.Tensor) -> bool:
        is_native = weight.dtype == torch.bfloat16 and weight.shape[1] % 32 == 0
        return is_native and weight.numel() < 2**31

    def __call__(self, states: torch.Tensor) -> list[int] | None:
        tokens: list[int] = []
        states = states.contiguous()
        for begin in range(0, len(states), _MOST_ROWS):
            tokens += self._choose(states[begin : begin + _MOST_ROWS])
        # Whatever fails for one row most likely does for others; so do not look at them one by one.
        return None if min(tokens) < 0 else tokens

    def _choose(self, states: torch.Tensor) -> list[int]:
        """-1 where the bounds do not tell."""
        tokens = (c_int64 * len(states))()
        size = len(states), *self._weight.shape
        self._run(states.data_ptr(), *self.weights_at, tokens, *size)
        return tokens[:]
