"""Passes of a burst in one call each, from tokens to the next ones.

After a step that has read all weights nothing of the interpreter is left in the caches: a function
that takes a microsecond takes ten. So what stays the same is looked up before the first pass.
"""

from __future__ import annotations

from ctypes import c_int64
from dataclasses import dataclass
from typing import Any

import torch

from pie_backend.engine.ops.native.layers import NativeLinear, NativeNorm
from pie_backend.engine.ops.native.library import EndsAt, Kernels
from pie_backend.engine.ops.native.screen import Screen
from pie_backend.engine.transformer import Decoder


@dataclass(frozen=True, slots=True)
class Ends:
    """Of a decoder: what is before its layers and behind them."""

    at: EndsAt
    vocab_size: int
    alive: tuple[object, ...]
    """What `at` has the addresses of."""

    @classmethod
    def of(cls, kernels: Kernels, decoder: Decoder) -> Ends | None:
        """None: not all of it is the kernels' own."""
        embedding, norm, head = decoder.embedding, decoder.norm, decoder.head
        screen, screening = decoder.screen, kernels.screening
        if not isinstance(norm, NativeNorm) or not isinstance(head, NativeLinear):
            return None
        screened: list[Any] = [None] * 6
        if isinstance(screen, Screen) and screening is not None:
            screened = [screening.choose_at, *screen.weights_at]
        embedding = embedding.contiguous()
        at = EndsAt(embedding.data_ptr(), norm.weight_at, head.described(), *screened)
        return cls(at, head.num_out, (embedding, norm, head, screen))


class NativeWalk:
    """Implements `Walk`."""

    def __init__(
        self,
        kernels: Kernels,
        arguments: tuple[Any, ...],
        ends: Ends,
        hidden: torch.Tensor,
        alive: object,
    ) -> None:
        """`arguments` of all layers, and what they have the addresses of."""
        self.ends = ends
        self._run = kernels.walk
        self._tokens = (c_int64 * len(hidden))()
        self._hidden = hidden
        # Of memory that nothing is written to there is none.
        self._logits = hidden.new_empty(len(hidden) * ends.vocab_size)
        self._states_of = (*arguments, ends.at, self._tokens, None)
        self._likeliest_of = (*arguments, ends.at, self._tokens, self._logits.data_ptr())
        self._alive = alive

    def states(self, tokens: list[int]) -> torch.Tensor:
        self._tokens[:] = tokens  # type: ignore[assignment]  # of typeshed: any integer will do
        self._run(*self._states_of)
        return self._hidden

    def likeliest(self, tokens: list[int]) -> list[int]:
        self._tokens[:] = tokens  # type: ignore[assignment]
        self._run(*self._likeliest_of)
        return self._tokens[:]
