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
        logits: torch.Tensor,
        alive: object,
    ) -> None:
        """`arguments` of all layers, and what they have the addresses of. `logits` has room for
        those of all rows."""
        self.ends = ends
        self._run = kernels.walk
        self._tokens = (c_int64 * len(hidden))()
        self._hidden = hidden
        self._arguments = (*arguments, ends.at, self._tokens)
        self._logits_at = logits.data_ptr()
        self._alive = alive, logits

    def states(self, tokens: list[int]) -> torch.Tensor:
        self._compute(tokens, None, goes_on=True)
        return self._hidden

    def likeliest(self, tokens: list[int], *, goes_on: bool = True) -> list[int]:
        self._compute(tokens, self._logits_at, goes_on)
        return self._tokens[:]

    def _compute(self, tokens: list[int], logits_at: int | None, goes_on: bool) -> None:
        self._tokens[:] = tokens  # type: ignore[assignment]  # of typeshed: any integer will do
        self._run(*self._arguments, logits_at, goes_on)
