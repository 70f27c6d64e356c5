"""All layers in one call: what Python and torch do between two kernels, and waiting for all threads
after each, cost a step of few rows a tenth."""

from __future__ import annotations

from ctypes import pointer
from dataclasses import dataclass
from typing import Any

import torch

from pie_backend.engine.attention.base import AttentionStep
from pie_backend.engine.ops.native.attention import NativeStep
from pie_backend.engine.ops.native.layers import NativeLinear, NativeNorm, NativePlacement
from pie_backend.engine.ops.native.library import BatchAt, Kernels, LayerAt, LongAt, ModelAt
from pie_backend.engine.ops.native.walk import Ends, NativeWalk
from pie_backend.engine.ragged import RaggedBatch
from pie_backend.engine.transformer import Decoder, DecoderLayer, Layers, OneByOne


def native_layers(kernels: Kernels, each: list[DecoderLayer]) -> Layers:
    """In one call where all of their parts are the kernels' own."""
    parts = [part for part in map(_parts_of, each) if part is not None]
    return NativeLayers(kernels, each, parts) if len(parts) == len(each) else OneByOne(each)


@dataclass(frozen=True, slots=True)
class _Parts:
    linears: list[NativeLinear]
    """As in `LayerAt`."""
    norms: list[NativeNorm]
    place: NativePlacement

    def described(self) -> LayerAt:
        addresses = [norm.weight_at for norm in self.norms]
        linears = [linear.described() for linear in self.linears]
        return LayerAt(*linears, *addresses, self.place.norms_at)


def _parts_of(layer: DecoderLayer) -> _Parts | None:
    attention, mlp = layer.attention, layer.mlp
    linears = (attention.qkv, attention.output, mlp.gate, mlp.up, mlp.down)
    norms = (layer.attention_norm, layer.mlp_norm)
    own_linears = [linear for linear in linears if isinstance(linear, NativeLinear)]
    own_norms = [norm for norm in norms if isinstance(norm, NativeNorm)]
    is_whole = len(own_linears) == len(linears) and len(own_norms) == len(norms)
    if not is_whole or not isinstance(attention.place, NativePlacement):
        return None
    return _Parts(own_linears, own_norms, attention.place)


class NativeLayers:
    """Implements `Layers`. Batches with rows that torch attends to go kernel by kernel, with the
    same numbers to the bit."""

    def __init__(self, kernels: Kernels, each: list[DecoderLayer], parts: list[_Parts]) -> None:
        self.each = each
        self._one_by_one = OneByOne(each)
        self._kernels = kernels
        self._layers = (LayerAt * len(parts))(*[part.described() for part in parts])
        self._work = torch.empty(len(parts) * kernels.layers_work_size, dtype=torch.uint8)
        self._wide = kernels.scratch(0)
        self._place = parts[0].place
        qkv, output, gate, *_ = parts[0].linears
        self._sizes = [qkv.num_out, output.num_in, gate.num_out]
        """Of what a token has between two products: qkv, what it has seen, inside the MLP."""
        self._between = torch.empty(0, dtype=torch.bfloat16)
        self._logits = torch.empty(0, dtype=torch.bfloat16)
        self._ends_of: Decoder | None = None
        self._ends: Ends | None = None

    def __call__(
        self,
        hidden: torch.Tensor,
        positions: torch.Tensor,
        step: AttentionStep,
        kept: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if not isinstance(step, NativeStep) or step.has_torch_rows:
            return self._one_by_one(hidden, positions, step, kept)
        # Addresses do not keep what lies there.
        hidden, positions = hidden.contiguous(), positions.contiguous()
        self._kernels.layers(*self._arguments(hidden, positions, step, kept))
        return hidden if kept is None else hidden[: len(kept)]

    def walk(self, decoder: Decoder, batch: RaggedBatch, step: AttentionStep) -> NativeWalk | None:
        if not isinstance(step, NativeStep) or not step.can_walk:
            return None
        if self._ends_of is not decoder:
            self._ends_of, self._ends = decoder, Ends.of(self._kernels, decoder)
        if self._ends is None:
            return None
        num_rows = len(batch.tokens)
        hidden = decoder.embedding.new_empty(num_rows, decoder.embedding.shape[1])
        if len(self._logits) < num_rows * self._ends.vocab_size:
            self._logits = hidden.new_empty(num_rows * self._ends.vocab_size)
        arguments = self._arguments(hidden, batch.positions, step, None)
        alive = batch, step, self._between
        return NativeWalk(self._kernels, arguments, self._ends, hidden, self._logits, alive)

    def _arguments(
        self,
        hidden: torch.Tensor,
        positions: torch.Tensor,
        step: NativeStep,
        kept: torch.Tensor | None,
    ) -> tuple[Any, ...]:
        return (
            self._model_at(step),
            _batch_at(positions, step, kept),
            self._layers,
            step.attention.planes,
            len(self._layers),
            hidden.data_ptr(),
            *self._room(len(hidden)),
            self._wide.data_ptr(),
            self._work.data_ptr(),
        )

    def _model_at(self, step: NativeStep) -> ModelAt:
        cache = step.attention.cache
        num_heads, num_kv_heads = self._place.heads
        size = cache.shape.head_dim
        return ModelAt(
            num_kv_heads,
            num_heads // num_kv_heads,
            size,
            cache.plane_size,
            cache.shape.page_size,
            self._place.eps,
            size**-0.5,
            self._place.rotations_at,
        )

    def _room(self, num_rows: int) -> list[int]:
        """Where what is between two products of so many rows is put."""
        if len(self._between) < num_rows * sum(self._sizes):
            self._between = torch.empty(num_rows * sum(self._sizes), dtype=torch.bfloat16)
        begin, places = self._between.data_ptr(), []
        for size in self._sizes:
            places.append(begin)
            begin += num_rows * size * self._between.itemsize
        return places


def _batch_at(positions: torch.Tensor, step: NativeStep, kept: torch.Tensor | None) -> BatchAt:
    rows, longer = step.singles, [LongAt(*row.numbers) for row in step.causal_rows]
    biases = None if rows is None else rows.biases
    together = None if rows is None or rows.together is None else pointer(rows.together.at)
    return BatchAt(
        len(positions),
        *((0, 0) if rows is None else rows.pages.shape),
        0 if biases is None else biases.shape[1],
        len(longer),
        0 if kept is None else len(kept),
        positions.data_ptr(),
        step.slots.data_ptr(),
        None if rows is None else rows.lengths.data_ptr(),
        None if rows is None else rows.pages.data_ptr(),
        None if biases is None else biases.data_ptr(),
        together,
        (LongAt * len(longer))(*longer),
        step.scratch.data_ptr(),
        None if kept is None else kept.data_ptr(),
    )
