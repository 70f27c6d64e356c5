"""Operators of FlashInfer where it has them, and of torch where torch's are as good."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pie_backend.engine.attention.base import Attention
from pie_backend.engine.attention.flashinfer import WORKSPACE_BYTES, FlashInferAttention
from pie_backend.engine.config import DecoderConfig
from pie_backend.engine.kv_cache import KVCache
from pie_backend.engine.ops.base import Linear
from pie_backend.engine.ops.flashinfer.library import Kernels
from pie_backend.engine.ops.linear import PlainLinear
from pie_backend.engine.ops.torch_ops import TorchNorm
from pie_backend.engine.sampling import likeliest
from pie_backend.engine.transformer import DecoderLayer, OneByOne

__all__ = ["WORKSPACE_BYTES", "FlashInferOperators", "complaint"]

HEAD_DIMS = (64, 128, 256)


def complaint(model: DecoderConfig) -> str | None:
    """Why the kernels cannot compute this model. They take pages of every size."""
    if model.head_dim in HEAD_DIMS:
        return None
    allowed = ", ".join(map(str, HEAD_DIMS))
    return f"FlashInfer takes heads of {allowed} numbers; this model's have {model.head_dim}"


@dataclass(frozen=True, slots=True)
class FlashInferPlacement:
    """Implements `Placement`."""

    kernels: Kernels
    waves: torch.Tensor
    """float32 [max_context, D]: cosines beside sines."""
    heads: tuple[int, int]
    norms: torch.Tensor | None
    eps: float

    def turns(self, positions: torch.Tensor) -> torch.Tensor:
        return positions.int()

    def __call__(
        self, qkv: torch.Tensor, turns: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        num_tokens, _, head_dim = qkv.shape
        num_heads, num_kv_heads = self.heads
        if self.norms is not None:
            placed = qkv[:, : num_heads + num_kv_heads]
            normed = F.rms_norm(placed.float(), (head_dim,), None, self.eps) * self.norms
            placed.copy_(normed)
        q, k, v = torch.split(qkv, [num_heads, num_kv_heads, num_kv_heads], dim=1)
        self.kernels.apply_rope_with_cos_sin_cache_inplace(
            turns,
            q.view(num_tokens, -1),
            k.view(num_tokens, -1),
            head_dim,
            self.waves,
            is_neox=False,
        )
        return q, k, v


class FlashInferOperators:
    """Implements `Operators`, in bfloat16."""

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels
        self.name = f"FlashInfer {kernels.__version__}"
        self._waves: tuple[torch.Tensor, torch.Tensor] | None = None
        """Rotations and what they became: large, and the same for every layer."""

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
        return PlainLinear(weight, bias)

    def norm(self, weight: torch.Tensor, eps: float) -> TorchNorm:
        return TorchNorm(weight, eps)

    def placement(
        self,
        rotations: torch.Tensor,
        heads: tuple[int, int],
        norms: torch.Tensor | None,
        eps: float,
    ) -> FlashInferPlacement:
        if self._waves is None or self._waves[0] is not rotations:
            self._waves = rotations, torch.cat([rotations.real, rotations.imag], dim=-1)
        return FlashInferPlacement(self._kernels, self._waves[1], heads, norms, eps)

    def layers(self, each: list[DecoderLayer]) -> OneByOne:
        return OneByOne(each)

    def likeliest(self, logits: torch.Tensor) -> list[int]:
        return likeliest(logits)

    def screen(self, head: Linear, weight: torch.Tensor) -> None:
        return None

    def attention(self, cache: KVCache, num_heads: int) -> Attention:
        return FlashInferAttention(self._kernels, cache, num_heads)
