"""FlashInfer's functions in float64 and plain torch: what its kernels have to compute.

They refuse what the kernels would read wrong in silence: indices of another type, on another
device or out of range, and page tables that do not fit their lengths.
"""

from __future__ import annotations

from typing import Any

import torch

from pie_backend.engine.ops.flashinfer.library import Cache

__version__ = "in float64, of plain torch"
_TABLES = 3


class _Wrapper:
    """One row after the other, one query after the other."""

    def __init__(
        self, float_workspace_buffer: torch.Tensor, kv_layout: str, **options: Any
    ) -> None:
        assert float_workspace_buffer.dtype == torch.uint8
        assert kv_layout == "HND"
        assert set(options) <= {"use_tensor_cores", "backend"}
        self.place = float_workspace_buffer.device
        self.rows: list[tuple[slice, torch.Tensor, torch.Tensor]] = []
        """Queries, places in the flattened pages, and which of them each query sees."""
        self.dtype = torch.float32
        self.page_size = 1

    def lay_out(
        self, queries: list[int], tables: tuple[torch.Tensor, ...], shape: tuple[int, ...]
    ) -> list[int]:
        """Works out `rows` but for what is seen; the number of places of each."""
        num_heads, num_kv_heads, _, self.page_size = shape
        assert num_heads % num_kv_heads == 0
        assert all(table.dtype == torch.int32 for table in tables)
        indptr, indices, last = (table.tolist() for table in tables)
        assert len(indptr) == len(queries) == len(last) + 1
        assert indptr[-1] == len(indices)
        lengths = []
        self.rows = []
        for i, size in enumerate(last):
            pages = torch.tensor(indices[indptr[i] : indptr[i + 1]])
            assert len(pages) > 0
            assert 1 <= size <= self.page_size
            places = (pages.unsqueeze(1) * self.page_size + torch.arange(self.page_size)).view(-1)
            num_places = (len(pages) - 1) * self.page_size + size
            lengths.append(num_places)
            self.rows.append((slice(queries[i], queries[i + 1]), places[:num_places], places))
        return lengths

    def run(self, q: torch.Tensor, paged_kv_cache: Cache) -> torch.Tensor:
        assert q.is_contiguous()
        assert q.dtype == self.dtype == paged_kv_cache[0].dtype
        assert len(q) == self.rows[-1][0].stop
        out = torch.empty_like(q)
        for queries, places, seen in self.rows:
            keys, values = (_flat(part)[:, places.to(q.device)] for part in paged_kv_cache)
            out[queries] = attend(q[queries], keys, values, seen.to(q.device)).to(q.dtype)
        return out


class BatchDecodeWithPagedKVCacheWrapper(_Wrapper):
    def plan(self, *args: Any, q_data_type: torch.dtype, kv_data_type: torch.dtype) -> None:
        tables, shape = args[:_TABLES], args[_TABLES:]
        self.dtype = q_data_type
        lengths = self.lay_out(list(range(len(tables[0]))), tables, shape)
        self.rows = [
            (queries, places, torch.ones(1, length, dtype=torch.bool))
            for (queries, places, _), length in zip(self.rows, lengths, strict=True)
        ]


class BatchPrefillWithPagedKVCacheWrapper(_Wrapper):
    def plan(
        self,
        qo_indptr: torch.Tensor,
        *args: Any,
        q_data_type: torch.dtype,
        kv_data_type: torch.dtype,
        causal: bool = False,
        custom_mask: torch.Tensor | None = None,
    ) -> None:
        tables, shape = args[:_TABLES], args[_TABLES:]
        self.dtype = q_data_type
        assert qo_indptr.dtype == torch.int32
        lengths = self.lay_out(qo_indptr.tolist(), tables, shape)
        if custom_mask is None:
            assert causal
            seen = [
                torch.ones(row[0].stop - row[0].start, length).tril(
                    length - (row[0].stop - row[0].start)
                )
                for row, length in zip(self.rows, lengths, strict=True)
            ]
        else:
            assert custom_mask.device == self.place
            assert all(table.device == self.place for table in (qo_indptr, *tables))
            sizes = [
                (row[0].stop - row[0].start) * length
                for row, length in zip(self.rows, lengths, strict=True)
            ]
            parts = torch.split(custom_mask.cpu(), sizes)
            seen = [part.view(-1, length) for part, length in zip(parts, lengths, strict=True)]
        self.rows = [
            (queries, places, bits.bool())
            for (queries, places, _), bits in zip(self.rows, seen, strict=True)
        ]


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """q [N, Hq, D], k and v [H, P, D], seen [N, P] -> float64 [N, Hq, D]"""
    shared = q.shape[1] // k.shape[0]
    keys, values = (part.double().repeat_interleave(shared, 0) for part in (k, v))
    scores = torch.einsum("nhd,hpd->hnp", q.double(), keys) * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return torch.einsum("hnp,hpd->nhd", weights, values)


def append_paged_kv_cache(  # noqa: PLR0913 - FlashInfer's own
    append_key: torch.Tensor,
    append_value: torch.Tensor,
    batch_indices: torch.Tensor,
    positions: torch.Tensor,
    paged_kv_cache: Cache,
    kv_indices: torch.Tensor,
    kv_indptr: torch.Tensor,
    kv_last_page_len: torch.Tensor,
    kv_layout: str,
) -> None:
    assert kv_layout == "HND"
    for array in (batch_indices, positions, kv_indices, kv_indptr, kv_last_page_len):
        assert array.dtype == torch.int32
        assert array.device == append_key.device
    page_size = paged_kv_cache[0].shape[2]
    tables = kv_indptr.tolist()
    for token, (row, place) in enumerate(
        zip(batch_indices.tolist(), positions.tolist(), strict=True)
    ):
        page = int(kv_indices[tables[row] + place // page_size])
        assert tables[row] + place // page_size < tables[row + 1]
        for pool, new in zip(paged_kv_cache, (append_key, append_value), strict=True):
            pool[page, :, place % page_size] = new[token]


def apply_rope_with_cos_sin_cache_inplace(
    positions: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    head_size: int,
    cos_sin_cache: torch.Tensor,
    is_neox: bool,
) -> None:
    assert not is_neox
    assert cos_sin_cache.dtype == torch.float32
    assert cos_sin_cache.is_contiguous()
    cos, sin = cos_sin_cache.double()[positions.long()].unsqueeze(1).chunk(2, dim=-1)
    for x in (query, key):
        heads = x.view(len(x), -1, head_size)
        even, odd = heads[..., ::2].double(), heads[..., 1::2].double()
        turned = even * cos - odd * sin, even * sin + odd * cos
        heads[..., ::2], heads[..., 1::2] = (part.to(x.dtype) for part in turned)


def _flat(part: torch.Tensor) -> torch.Tensor:
    """[pages, H, page_size, D] -> [H, pages * page_size, D]"""
    return part.transpose(0, 1).flatten(1, 2)
