"""LoRA adapters beside the model: what they add, token by token, to the model's linear layers.

They are float32 whatever the model is: products as small as these are several times faster in it on
the processors measured, and PEFT keeps them so as well.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from pie_backend.engine.ops.base import Linear
from pie_backend.engine.parallel.linear import SummedLinear
from pie_backend.engine.ragged import RaggedBatch, index_of
from pie_backend.engine.transformer import Decoder, DecoderLayer, OneByOne

Site = tuple[int, str]
"""A linear layer of the decoder: number of the layer and name of the field that holds it."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """What one adapter adds to one linear layer: b (a x), in float32."""

    a: torch.Tensor
    """[rank, in]"""
    b: torch.Tensor
    """[out, rank], the scale included"""


@dataclass(frozen=True, slots=True)
class Adapter:
    digest: str
    num_bytes: int
    parts: dict[Site, LowRank]


@dataclass(frozen=True, slots=True)
class AdaptedTokens:
    """Tokens of the flat batch that one adapter computes."""

    adapter: Adapter
    places: slice | torch.Tensor
    """int64 where they are not neighbours."""


class AdapterStep:
    """Which tokens of the present batch are whose; all linear layers of a decoder share one."""

    def __init__(self) -> None:
        self.tokens: list[AdaptedTokens] = []

    def add(self, site: Site, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Adds to out [N, out], in place, what the adapters make of x [N, in]."""
        for group in self.tokens:
            part = group.adapter.parts.get(site)
            if part is None:
                continue
            places = group.places
            added = F.linear(F.linear(x[places].float(), part.a), part.b)
            if isinstance(places, slice):
                out[places].add_(added)
            else:
                out.index_add_(0, places, added.to(out.dtype))
        return out


class AdaptedLinear:
    """Implements `Linear`. What an adapter adds comes before the activation."""

    def __init__(self, base: Linear, site: Site, step: AdapterStep) -> None:
        self._base = base
        self._site = site
        self._step = step

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._step.add(self._site, x, self._base(x))

    def silu(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(self(x))

    def times(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return self(x) * other

    def plus(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return self._step.add(self._site, x, self._base.plus(x, other))


def adapted(decoder: Decoder, step: AdapterStep) -> Decoder:
    """The same decoder over the same weights, with what `step` says added."""
    each = enumerate(decoder.layers.each)
    layers = [_adapted_layer(layer, number, step) for number, layer in each]
    return replace(decoder, layers=OneByOne(layers))


def _adapted_layer(layer: DecoderLayer, number: int, step: AdapterStep) -> DecoderLayer:
    def wrap(linear: Linear, name: str) -> Linear:
        if isinstance(linear, SummedLinear):
            # What the adapter makes of this rank's inputs is a part of the sum as well.
            return linear.around(lambda part: wrap(part, name))
        return AdaptedLinear(linear, (number, name), step)

    attention, mlp = layer.attention, layer.mlp
    return replace(
        layer,
        attention=replace(
            attention, qkv=wrap(attention.qkv, "qkv"), output=wrap(attention.output, "output")
        ),
        mlp=replace(
            mlp, gate=wrap(mlp.gate, "gate"), up=wrap(mlp.up, "up"), down=wrap(mlp.down, "down")
        ),
    )


def tokens_by_adapter(flat: RaggedBatch, adapters: dict[str, Adapter]) -> list[AdaptedTokens]:
    """Raises KeyError for an adapter that is not there."""
    places: dict[str, list[int]] = defaultdict(list)
    for span in flat.spans:
        if span.row.adapter is not None:
            places[span.row.adapter] += range(span.begin, span.end)
    return [
        AdaptedTokens(adapters[digest], index_of(found, flat.tokens.device))
        for digest, found in places.items()
    ]
