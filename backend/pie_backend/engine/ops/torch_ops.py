"""Operators of torch alone, for every dtype and every processor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pie_backend.engine.attention.base import Attention
from pie_backend.engine.attention.gathered import GatheredAttention
from pie_backend.engine.kv_cache import KVCache
from pie_backend.engine.ops.base import Linear
from pie_backend.engine.ops.linear import make_linear
from pie_backend.engine.rope import rotate
from pie_backend.engine.sampling import likeliest
from pie_backend.engine.transformer import DecoderLayer, OneByOne


@dataclass(frozen=True, slots=True)
class TorchNorm:
    weight: torch.Tensor
    eps: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


@dataclass(frozen=True, slots=True)
class TorchPlacement:
    rotations: torch.Tensor
    heads: tuple[int, int]
    norms: torch.Tensor | None
    eps: float

    def turns(self, positions: torch.Tensor) -> torch.Tensor:
        return self.rotations[positions].unsqueeze(1)  # [N, 1, D/2]

    def __call__(
        self, qkv: torch.Tensor, turns: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        num_heads, num_kv_heads = self.heads
        num_rotated = num_heads + num_kv_heads
        x = qkv[:, :num_rotated].float()
        if self.norms is not None:
            x = F.rms_norm(x, (x.shape[-1],), None, self.eps) * self.norms
        qk = rotate(x, turns).to(qkv.dtype)
        return qk[:, :num_heads], qk[:, num_heads:], qkv[:, num_rotated:]


class TorchOperators:
    def __init__(self, name: str = "torch") -> None:
        self.name = name

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
        return make_linear(weight, bias)

    def norm(self, weight: torch.Tensor, eps: float) -> TorchNorm:
        return TorchNorm(weight, eps)

    def placement(
        self,
        rotations: torch.Tensor,
        heads: tuple[int, int],
        norms: torch.Tensor | None,
        eps: float,
    ) -> TorchPlacement:
        return TorchPlacement(rotations, heads, norms, eps)

    def layers(self, each: list[DecoderLayer]) -> OneByOne:
        return OneByOne(each)

    def likeliest(self, logits: torch.Tensor) -> list[int]:
        return likeliest(logits)

    def screen(self, head: Linear, weight: torch.Tensor) -> None:
        return None

    def attention(self, cache: KVCache, num_heads: int) -> Attention:
        return GatheredAttention(cache, num_heads)
