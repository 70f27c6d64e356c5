"""Attention over pages by FlashInfer: up to three kernels a batch, planned once for all layers.

Always its second generation of kernels: it takes every mask and compiles in a minute or two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from pie_backend.engine.attention.paged_plan import Group, Ints, PagedPlan, PageTables, plan_pages
from pie_backend.engine.kv_cache import KVCache
from pie_backend.engine.ops.flashinfer.library import Kernels, Wrapper
from pie_backend.engine.ragged import RaggedBatch, index_of

WORKSPACE_BYTES = 128 << 20
_HOST = torch.device("cpu")
"""Where plans are made; the wrappers bring what they need to the device themselves."""
_LAYOUT = "HND"
"""Of the pool: a head's part of a page is one block."""
_TENSOR_CORES_FROM = 4
"""Queries of a key from which on decoding gains from tensor cores; the other kernel knows no number
above that but 8."""


class FlashInferAttention:
    """Implements `Attention`. Plans are kept by the wrappers: one batch after the other."""

    def __init__(self, kernels: Kernels, cache: KVCache, num_heads: int) -> None:
        self.kernels = kernels
        self.cache = cache
        self.num_heads = num_heads
        queries = num_heads // cache.shape.num_kv_heads
        workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=cache.place)
        decode, prefill = (
            kernels.BatchDecodeWithPagedKVCacheWrapper,
            kernels.BatchPrefillWithPagedKVCacheWrapper,
        )
        self._decode = decode(
            workspace, _LAYOUT, use_tensor_cores=queries >= _TENSOR_CORES_FROM, backend="fa2"
        )
        self._causal = prefill(workspace, _LAYOUT, backend="fa2")
        self._masked = prefill(workspace, _LAYOUT, backend="fa2")

    def plan(self, batch: RaggedBatch) -> FlashInferStep:
        page_size, place = self.cache.shape.page_size, self.cache.place
        plan = plan_pages(batch, page_size)
        calls: list[Call] = []
        if plan.decode is not None:
            tables = _arrays(plan.decode.tables, _HOST)
            self._decode.plan(*tables, *self._shape(), **self._dtypes())
            calls.append(Call(self._decode, index_of(plan.decode.places, place)))
        if plan.causal is not None:
            calls.append(self._prefill(self._causal, plan.causal, _HOST, causal=True))
        if plan.masked is not None:
            mask = torch.from_numpy(plan.masked.mask).to(place)
            # Its bits are packed on the device, by arrays that have to be there as well.
            calls.append(self._prefill(self._masked, plan.masked, place, custom_mask=mask))
        return FlashInferStep(self, Append.at(place, plan), calls)

    def _prefill(self, wrapper: Wrapper, group: Group, at: torch.device, **mask: Any) -> Call:
        queries, tables = torch.from_numpy(group.query_indptr).to(at), _arrays(group.tables, at)
        wrapper.plan(queries, *tables, *self._shape(), **mask, **self._dtypes())
        return Call(wrapper, index_of(group.places, self.cache.place))

    def _shape(self) -> tuple[int, int, int, int]:
        shape = self.cache.shape
        return self.num_heads, shape.num_kv_heads, shape.head_dim, shape.page_size

    def _dtypes(self) -> dict[str, torch.dtype]:
        dtype = self.cache.shape.dtype
        return {"q_data_type": dtype, "kv_data_type": dtype}


@dataclass(frozen=True, slots=True)
class Call:
    wrapper: Wrapper
    places: slice | torch.Tensor
    """Of its tokens in the flat batch."""


@dataclass(frozen=True, slots=True)
class Append:
    """Where a batch's keys and values go; int32, on the device."""

    rows: torch.Tensor
    places: torch.Tensor
    indices: torch.Tensor
    indptr: torch.Tensor
    last_page_len: torch.Tensor

    @classmethod
    def at(cls, place: torch.device, plan: PagedPlan) -> Append:
        tables = plan.tables

        def moved(array: Ints) -> torch.Tensor:
            return torch.from_numpy(array).to(place)

        return cls(
            moved(plan.rows),
            moved(plan.places),
            moved(tables.indices),
            moved(tables.indptr),
            moved(tables.last_page_len),
        )


@dataclass(frozen=True, slots=True)
class FlashInferStep:
    attention: FlashInferAttention
    append: Append
    calls: list[Call]

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        cache = self.attention.cache.keys_and_values(layer)
        to = self.append
        self.attention.kernels.append_paged_kv_cache(
            k, v, to.rows, to.places, cache, to.indices, to.indptr, to.last_page_len, _LAYOUT
        )
        if len(self.calls) == 1:
            return self.calls[0].wrapper.run(q.contiguous(), cache).flatten(1)
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        for call in self.calls:
            out[call.places] = call.wrapper.run(q[call.places].contiguous(), cache)
        return out.flatten(1)


def _arrays(
    tables: PageTables, at: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    indptr, indices, last = (
        torch.from_numpy(array).to(at)
        for array in (tables.indptr, tables.indices, tables.last_page_len)
    )
    return indptr, indices, last
