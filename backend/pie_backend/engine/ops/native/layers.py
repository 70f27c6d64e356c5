"""Layers computed by the kernels; each one takes the place of one of torch's."""

from __future__ import annotations

import torch

from pie_backend.engine.huge_pages import Slabs
from pie_backend.engine.ops.native.library import PLAIN, PLUS, SILU, TIMES, Kernels, LinearAt


class NativeLinear:
    """Implements `Linear` over weights in the order in which the kernels read them."""

    def __init__(
        self,
        kernels: Kernels,
        memory: Slabs,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
    ) -> None:
        self.num_out, self.num_in = weight.shape
        self._bias = None if bias is None else bias.float()
        self._bias_at = None if self._bias is None else self._bias.data_ptr()
        self._scales_at: int | None = None
        self._wide_at: int | None = None
        self._run = kernels.linear
        self._pack(kernels, memory, weight.contiguous())

    def _pack(self, kernels: Kernels, memory: Slabs, weight: torch.Tensor) -> None:
        self._weight = memory.take(self._padded_out * self.num_in)
        self._weight_at = self._weight.data_ptr()
        kernels.pack(weight.data_ptr(), self._weight_at, self.num_out, self.num_in)

    @property
    def _padded_out(self) -> int:
        return -(-self.num_out // 32) * 32

    @staticmethod
    def can_take(weight: torch.Tensor) -> bool:
        return weight.dtype == torch.bfloat16 and weight.shape[1] % 32 == 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._compute(x, PLAIN, None)

    def silu(self, x: torch.Tensor) -> torch.Tensor:
        return self._compute(x, SILU, None)

    def times(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return self._compute(x, TIMES, other)

    def plus(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return self._compute(x, PLUS, other)

    def described(self) -> LinearAt:
        addresses = (self._weight_at, self._scales_at, self._bias_at)
        return LinearAt(*addresses, self.num_out, self.num_in)

    def _compute(self, x: torch.Tensor, then: int, other: torch.Tensor | None) -> torch.Tensor:
        x = x.contiguous()
        out = x.new_empty(x.shape[0], self.num_out)
        other_at = None if other is None else other.contiguous().data_ptr()
        self._run(
            x.data_ptr(),
            self._weight_at,
            self._scales_at,
            self._bias_at,
            other_at,
            out.data_ptr(),
            self._wide_at,
            x.shape[0],
            self.num_out,
            self.num_in,
            then,
        )
        return out


class Int8Linear(NativeLinear):
    """Weights in int8 with a scale for each output: half the memory to read, computed as before."""

    def _pack(self, kernels: Kernels, memory: Slabs, weight: torch.Tensor) -> None:
        self._weight = memory.take(self._padded_out * self.num_in // 2)
        self._weight_at = self._weight.data_ptr()
        self._scales = torch.empty(self.num_out)
        self._scales_at = self._scales.data_ptr()
        size = (self.num_out, self.num_in)
        kernels.pack_int8(weight.data_ptr(), self._weight_at, self._scales_at, *size)
        self._wide = kernels.scratch(32 * max(self.num_in, 256))
        self._wide_at = self._wide.data_ptr()


class NativeNorm:
    def __init__(self, kernels: Kernels, weight: torch.Tensor, eps: float) -> None:
        self._run = kernels.rms_norm
        self._weight = weight.contiguous()
        self.weight_at = self._weight.data_ptr()
        self.eps = eps

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        out = torch.empty_like(x)
        rows, size = x.shape
        self._run(x.data_ptr(), self.weight_at, out.data_ptr(), rows, size, self.eps)
        return out


class NativePlacement:
    def __init__(
        self,
        kernels: Kernels,
        rotations: torch.Tensor,
        heads: tuple[int, int],
        norms: torch.Tensor | None,
        eps: float,
    ) -> None:
        self._run = kernels.place
        self._rotations = rotations.contiguous()
        self.rotations_at = self._rotations.data_ptr()
        self._norms = None if norms is None else norms.contiguous()
        self.norms_at = None if self._norms is None else self._norms.data_ptr()
        self.heads = heads
        self.eps = eps

    def turns(self, positions: torch.Tensor) -> torch.Tensor:
        return positions.contiguous()

    def __call__(
        self, qkv: torch.Tensor, turns: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Where it lies: q, k and v are parts of qkv."""
        num_tokens, num_planes, head_dim = qkv.shape
        num_heads, num_kv_heads = self.heads
        num_rotated = num_heads + num_kv_heads
        self._run(
            qkv.data_ptr(),
            self.norms_at,
            self.rotations_at,
            turns.data_ptr(),
            num_tokens,
            num_planes * head_dim,
            num_rotated,
            head_dim,
            self.eps,
        )
        return qkv[:, :num_heads], qkv[:, num_heads:num_rotated], qkv[:, num_rotated:]
