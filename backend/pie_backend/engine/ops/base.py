"""The seam between a model and the code that computes its layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import torch

from pie_backend.engine.attention.base import Attention
from pie_backend.engine.kv_cache import KVCache

if TYPE_CHECKING:
    from pie_backend.engine.transformer import DecoderLayer, Layers


Screened = Callable[[torch.Tensor], list[int] | None]
"""Normed states [R, hidden] -> what `likeliest` says of their logits; None: it cannot be told."""


class Linear(Protocol):
    """y = x W^T + b, with what usually follows fused in where the library can."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...

    def silu(self, x: torch.Tensor) -> torch.Tensor:
        """silu(linear(x))"""
        ...

    def times(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """linear(x) * other"""
        ...

    def plus(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """linear(x) + other"""
        ...


class Norm(Protocol):
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[N, hidden] -> the same, each row divided by its root mean square and weighted"""
        ...


class Placement(Protocol):
    """Puts query and key where their tokens stand: normalised per head (Qwen3) and rotated."""

    def turns(self, positions: torch.Tensor) -> torch.Tensor:
        """int64 positions [N] -> what all layers need of them; worked out once a batch"""
        ...

    def __call__(
        self, qkv: torch.Tensor, turns: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """[N, Hq + 2 Hkv, D], which may be overwritten -> q, k, v [N, heads, D]"""
        ...


class Operators(Protocol):
    name: str
    """For people: what computes, and if it is not the fastest, why."""

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
        """weight [out, in], bias [out]; may lay them out anew."""
        ...

    def norm(self, weight: torch.Tensor, eps: float) -> Norm: ...

    def placement(
        self,
        rotations: torch.Tensor,
        heads: tuple[int, int],
        norms: torch.Tensor | None,
        eps: float,
    ) -> Placement:
        """rotations complex64 [max_context, D/2]; heads (Hq, Hkv); norms float32 [Hq + Hkv, D]"""
        ...

    def layers(self, each: list[DecoderLayer]) -> Layers:
        """Of what the other functions have made; some of it may be wrapped."""
        ...

    def likeliest(self, logits: torch.Tensor) -> list[int]:
        """[R, vocab] -> of each row the lowest id with the largest logit."""
        ...

    def screen(self, head: Linear, weight: torch.Tensor) -> Screened | None:
        """weight [vocab, hidden] is the head's, unchanged; None: all logits are as cheap."""
        ...

    def attention(self, cache: KVCache, num_heads: int) -> Attention: ...
