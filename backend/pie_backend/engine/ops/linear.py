"""Matrix products over weights laid out once, at load, for the processor they run on."""

from __future__ import annotations

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


def make_linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
    """Packs where this processor and this build of torch can, else falls back."""
    try:
        packed = PackedLinear(weight, bias)
        packed(weight.new_zeros(1, weight.shape[1]))
        return packed
    except (AttributeError, NotImplementedError, RuntimeError):
        return PlainLinear(weight, bias)
