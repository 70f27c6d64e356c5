"""Attention that reads pages where they lie; longer rows that are not causal are left to torch."""

from __future__ import annotations

from ctypes import c_void_p
from dataclasses import dataclass

import torch

from pie_backend.engine.attention.gathered import GatheredAttention, PrefillRow, unseen_places
from pie_backend.engine.kv_cache import KVCache
from pie_backend.engine.ops.native.library import Kernels
from pie_backend.engine.ragged import RaggedBatch, Span


@dataclass(frozen=True, slots=True)
class SingleRows:
    """All rows of one token; they are the first of the flat batch."""

    pages: torch.Tensor
    """int32 [rows, widest table]; what lies beyond a row's table is never read."""
    lengths: torch.Tensor
    """int64 [rows]: places that the row reaches, its own included."""
    biases: torch.Tensor | None
    """float32 [rows, longest]: 0 where a row sees, -inf elsewhere; None: all see all."""


@dataclass(frozen=True, slots=True)
class CausalRow:
    """Tokens [begin, end) of the flat batch, each of which sees all before it."""

    begin: int
    end: int
    start: int
    pages: torch.Tensor
    """int32 [pages]"""


class NativeAttention:
    def __init__(self, kernels: Kernels, cache: KVCache, num_heads: int) -> None:
        self.kernels = kernels
        self.cache = cache
        self.by_torch = GatheredAttention(cache, num_heads)
        addresses = [cache.layer_address(layer) for layer in range(cache.shape.num_layers)]
        self.planes = (c_void_p * len(addresses))(*addresses)
        """Of all layers: where each one's keys and values are."""

    def plan(self, batch: RaggedBatch) -> NativeStep:
        singles = batch.spans[: batch.num_single]
        longer = [self._longer(span) for span in batch.spans[batch.num_single :]]
        causal = [row for row in longer if isinstance(row, CausalRow)]
        scratch = torch.empty(
            max((self._scratch_size(row) for row in causal), default=0), dtype=torch.bfloat16
        )
        rows = _single_rows(singles) if singles else None
        return NativeStep(self, batch.slots, rows, longer, scratch)

    def _longer(self, span: Span) -> CausalRow | PrefillRow:
        if span.row.attention is not None or span.reach.hidden:
            return self.by_torch.prefill_row(span)
        pages = torch.tensor(span.reach.pages, dtype=torch.int32)
        return CausalRow(span.begin, span.end, span.reach.start, pages)

    def _scratch_size(self, row: CausalRow) -> int:
        """Keys and values of the row's context, rounded up to whole tiles."""
        context = -(-(row.start + row.end - row.begin) // 32) * 32
        return 2 * context * self.cache.shape.num_kv_heads * self.cache.shape.head_dim


@dataclass(frozen=True, slots=True)
class NativeStep:
    attention: NativeAttention
    slots: torch.Tensor
    singles: SingleRows | None
    longer: list[CausalRow | PrefillRow]
    scratch: torch.Tensor

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """q, k and v are parts of one tensor, as `NativePlacement` leaves them."""
        num_tokens, num_heads, head_dim = q.shape
        self._write(layer, k, v)
        out = q.new_empty(num_tokens, num_heads * head_dim)
        if self.singles is not None:
            self._attend_singles(layer, q, out, self.singles)
        for row in self.longer:
            if isinstance(row, CausalRow):
                self._attend_causal(layer, q, out, row)
            else:
                own = q[row.begin : row.end]
                out[row.begin : row.end] = self.attention.by_torch.prefill(layer, row, own)
        return out

    def _write(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        cache = self.attention.cache
        self.attention.kernels.write(
            k.data_ptr(),
            v.data_ptr(),
            cache.layer_address(layer),
            self.slots.data_ptr(),
            k.shape[0],
            k.stride(0),
            cache.shape.num_kv_heads,
            cache.shape.head_dim,
            cache.plane_size,
        )

    def _attend_singles(
        self, layer: int, q: torch.Tensor, out: torch.Tensor, rows: SingleRows
    ) -> None:
        cache, biases = self.attention.cache, rows.biases
        num_rows, width = rows.pages.shape
        self.attention.kernels.attend_rows(
            q.data_ptr(),
            cache.layer_address(layer),
            rows.pages.data_ptr(),
            rows.lengths.data_ptr(),
            None if biases is None else biases.data_ptr(),
            out.data_ptr(),
            num_rows,
            q.stride(0),
            *self._shape(q),
            width,
            0 if biases is None else biases.shape[1],
            q.shape[2] ** -0.5,
        )

    def _attend_causal(
        self, layer: int, q: torch.Tensor, out: torch.Tensor, row: CausalRow
    ) -> None:
        self.attention.kernels.attend_causal(
            q[row.begin].data_ptr(),
            self.attention.cache.layer_address(layer),
            row.pages.data_ptr(),
            self.scratch.data_ptr(),
            out[row.begin].data_ptr(),
            row.end - row.begin,
            row.start,
            q.stride(0),
            *self._shape(q),
            q.shape[2] ** -0.5,
        )

    def _shape(self, q: torch.Tensor) -> tuple[int, int, int, int, int]:
        """Key heads, queries of each, head size, plane size, page size"""
        cache = self.attention.cache
        shape = cache.shape
        queries = q.shape[1] // shape.num_kv_heads
        return shape.num_kv_heads, queries, shape.head_dim, cache.plane_size, shape.page_size


def _single_rows(spans: list[Span]) -> SingleRows:
    reaches = [span.reach for span in spans]
    width = max(reach.num_pages for reach in reaches)
    tables = [reach.pages + [0] * (width - reach.num_pages) for reach in reaches]
    lengths = [reach.start + 1 for reach in reaches]
    biases = None
    if any(span.reach.hidden or span.row.attention is not None for span in spans):
        biases = torch.zeros(len(spans), max(lengths)).masked_fill_(
            unseen_places(spans, max(lengths)), -torch.inf
        )
    return SingleRows(torch.tensor(tables, dtype=torch.int32), torch.tensor(lengths), biases)
