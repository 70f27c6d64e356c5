"""Operators of the kernels, and of torch where a kernel has not what a layer needs."""

from __future__ import annotations

from ctypes import c_int64

import torch

from pie_backend.engine.attention.base import Attention
from pie_backend.engine.config import DecoderConfig
from pie_backend.engine.huge_pages import Slabs
from pie_backend.engine.kv_cache import KVCache
from pie_backend.engine.ops.base import Linear, Norm, Placement
from pie_backend.engine.ops.linear import make_linear
from pie_backend.engine.ops.native.attention import NativeAttention
from pie_backend.engine.ops.native.build import NoKernels
from pie_backend.engine.ops.native.layers import (
    Int8Linear,
    NativeLinear,
    NativeNorm,
    NativePlacement,
)
from pie_backend.engine.ops.native.library import Kernels
from pie_backend.engine.ops.native.screen import Screen
from pie_backend.engine.ops.native.whole import native_layers
from pie_backend.engine.sampling import likeliest
from pie_backend.engine.transformer import DecoderLayer, Layers

_MAX_HEAD_DIM = 256


class NativeOperators:
    def __init__(self, config: DecoderConfig, dtype: torch.dtype, weights: str = "auto") -> None:
        """`weights`: auto, those of the dtype, or int8.

        Raises: NoKernels."""
        if dtype != torch.bfloat16:
            raise NoKernels("the kernels compute in bfloat16")
        if config.head_dim % 32 or config.head_dim > _MAX_HEAD_DIM:
            raise NoKernels(
                f"the kernels take heads of up to {_MAX_HEAD_DIM} numbers, a multiple of 32; "
                f"this model's have {config.head_dim}"
            )
        self._kernels = Kernels()
        self._memory = Slabs()
        self.name = self._kernels.name
        self._linear: type[NativeLinear] = NativeLinear
        if weights == "int8":
            self._take_int8(config)

    def _take_int8(self, config: DecoderConfig) -> None:
        if config.hidden_size % 32 or config.intermediate_size % 32:
            raise NoKernels("weights in int8 need layers of a multiple of 32 numbers")
        self._linear = Int8Linear
        self.name += ", int8 weights"

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
        if NativeLinear.can_take(weight):
            return self._linear(self._kernels, self._memory, weight, bias)
        return make_linear(weight, bias)

    def norm(self, weight: torch.Tensor, eps: float) -> Norm:
        return NativeNorm(self._kernels, weight, eps)

    def placement(
        self,
        rotations: torch.Tensor,
        heads: tuple[int, int],
        norms: torch.Tensor | None,
        eps: float,
    ) -> Placement:
        return NativePlacement(self._kernels, rotations, heads, norms, eps)

    def layers(self, each: list[DecoderLayer]) -> Layers:
        return native_layers(self._kernels, each)

    def likeliest(self, logits: torch.Tensor) -> list[int]:
        if logits.dtype != torch.bfloat16 or not logits.is_contiguous():
            return likeliest(logits)
        num_rows, size = logits.shape
        tokens = (c_int64 * num_rows)()
        self._kernels.likeliest(logits.data_ptr(), tokens, num_rows, size)
        return tokens[:]

    def screen(self, head: Linear, weight: torch.Tensor) -> Screen | None:
        screening = self._kernels.screening
        if screening is None or type(head) is not NativeLinear or not Screen.can_take(weight):
            return None
        return Screen(screening, self._memory, weight)

    def attention(self, cache: KVCache, num_heads: int) -> Attention:
        return NativeAttention(self._kernels, cache, num_heads)
