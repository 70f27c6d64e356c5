"""Matrix products over weights laid out once, at load, for the processor they run on."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F

from pie_backend.engine.ops.base import Linear


class PackedLinear:
    """oneDNN over a weight in its blocked layout: about twice F.linear, from 1 to 256 rows."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self._bias = bias
        self._run = torch.ops.mkldnn._linear_pointwise.default
        self._run_binary = torch.ops.mkldnn._linear_pointwise.binary

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self._run(x, self._weight, self._bias, "none", [], "")
        return result

    def silu(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self._run(x, self._weight, self._bias, "swish", [], "")
        return result

    def times(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self._run_binary(x, other, self._weight, self._bias, "mul")
        return result

    def plus(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self._run_binary(x, other, self._weight, self._bias, "add")
        return result


class WidenedLinear:
    """Bfloat16 on a processor without products of it: computed in float32, several times faster
    than what torch does there for more than a row or two. The weights take twice the memory."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._wide = PackedLinear(weight.float(), None if bias is None else bias.float())

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._wide(x.float()).to(x.dtype)

    def silu(self, x: torch.Tensor) -> torch.Tensor:
        return self._wide.silu(x.float()).to(x.dtype)

    def times(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return self._wide.times(x.float(), other.float()).to(x.dtype)

    def plus(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return self._wide.plus(x.float(), other.float()).to(x.dtype)


class PlainLinear:
    """What every build of torch can do."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._weight = weight
        self._bias = bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self._weight, self._bias)

    def silu(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(self(x))

    def times(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return self(x) * other

    def plus(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return self(x) + other


@cache
def product_dtype(dtype: torch.dtype, place: str = "cpu") -> torch.dtype:
    """In which matrix products are fast there: on processors bfloat16 needs instructions for it."""
    if place != "cpu" or dtype != torch.bfloat16:
        return dtype
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.float32
    return dtype


def make_linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
    """Packs where this processor and this build of torch can, else falls back."""
    if weight.device.type != "cpu":
        return PlainLinear(weight, bias)
    kind = PackedLinear if product_dtype(weight.dtype) == weight.dtype else WidenedLinear
    try:
        packed = kind(weight, bias)
        packed(weight.new_zeros(1, weight.shape[1]))
        return packed
    except (AttributeError, NotImplementedError, RuntimeError):
        return PlainLinear(weight, bias)
