"""Attention that reads pages where they lie; longer rows that are not causal are left to torch."""

from __future__ import annotations

from array import array
from ctypes import byref, c_void_p
from dataclasses import dataclass
from itertools import accumulate, chain, takewhile

import torch

from pie_backend.engine.attention.gathered import GatheredAttention, PrefillRow, unseen_places
from pie_backend.engine.kv_cache import KVCache
from pie_backend.engine.ops.native.library import GATHERED, Kernels, TogetherAt
from pie_backend.engine.ops.native.sharing import Sharing, find_sharing
from pie_backend.engine.ragged import RaggedBatch, Span

_WORTH = 2048
"""Tokens that are not attended to again, from where on that pays for finding out."""
_SHORT = 32
"""Longer rows are faster with their context laid out for products."""


@dataclass(frozen=True, slots=True)
class SingleRows:
    """The first tokens of the flat batch, each as a row of one token: rows of one, and of a few."""

    pages: torch.Tensor
    """int32 [rows, widest table], with those for tokens to come; beyond its length a row reads
    nothing."""
    lengths: torch.Tensor
    """int64 [rows]: places that the row reaches, its own included."""
    biases: torch.Tensor | None
    """float32 [rows, longest]: 0 where a row sees, -inf elsewhere; None: all see all."""
    together: Together | None


class Together:
    """Rows that begin with the same pages, as the kernels want them."""

    def __init__(self, sharing: Sharing, num_heads: int) -> None:
        groups = [group for level in sharing.levels for group in level]
        firsts = accumulate((len(group.rows) for group in groups), initial=0)
        levels = accumulate(map(len, sharing.levels), initial=0)
        spans = ((at, len(g.rows), g.begin, g.end) for at, g in zip(firsts, groups, strict=False))
        self._gathered = torch.empty(len(sharing.begins) * num_heads * GATHERED)
        # Far cheaper than tensors, when they are as small.
        self._arrays = (
            array("q", sharing.begins),
            array("i", chain.from_iterable(group.rows for group in groups)),
            array("q", chain.from_iterable(spans)),
            array("q", levels),
        )
        begins, *rest = (numbers.buffer_info()[0] for numbers in self._arrays)
        self.at = TogetherAt(begins, self._gathered.data_ptr(), *rest, len(sharing.levels))


@dataclass(frozen=True, slots=True)
class CausalRow:
    """Tokens [begin, end) of the flat batch, each of which sees all before it."""

    begin: int
    end: int
    start: int
    pages: torch.Tensor
    """int32 [pages]"""

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """As in `LongAt`."""
        return self.begin, self.end - self.begin, self.start, self.pages.data_ptr()


class NativeAttention:
    def __init__(self, kernels: Kernels, cache: KVCache, num_heads: int) -> None:
        self.kernels = kernels
        self.cache = cache
        self.num_heads = num_heads
        self.by_torch = GatheredAttention(cache, num_heads)
        addresses = [cache.layer_address(layer) for layer in range(cache.shape.num_layers)]
        self.planes = (c_void_p * len(addresses))(*addresses)
        """Of all layers: where each one's keys and values are."""

    def plan(self, batch: RaggedBatch) -> NativeStep:
        num_short = batch.num_single
        if self.kernels.gathers_together:
            num_short += _num_short(batch.spans[batch.num_single :])
        longer = [self._longer(span) for span in batch.spans[num_short:]]
        causal = [row for row in longer if isinstance(row, CausalRow)]
        scratch = torch.empty(
            max((self._scratch_size(row) for row in causal), default=0), dtype=torch.bfloat16
        )
        rows = self._single_rows(batch.spans[:num_short]) if num_short else None
        return NativeStep(self, batch.slots, rows, longer, scratch)

    def _single_rows(self, spans: list[Span]) -> SingleRows:
        page_size = self.cache.shape.page_size
        own = [span.pages_to_come(page_size) for span in spans]
        width = max(map(len, own))
        tables: list[list[int]] = []
        lengths: list[int] = []
        for span, table in zip(spans, own, strict=True):
            start, count = span.reach.start, span.end - span.begin
            tables += [table + [0] * (width - len(table))] * count
            lengths += range(start + 1, start + count + 1)
        pages = torch.tensor(tables, dtype=torch.int32)
        biases, together = self._biases(spans, lengths), self._together(spans, tables)
        return SingleRows(pages, torch.tensor(lengths), biases, together)

    def _biases(self, spans: list[Span], lengths: list[int]) -> torch.Tensor | None:
        if not any(span.is_partial for span in spans):
            return None
        singles = [span for span in spans if span.end - span.begin == 1]
        biases = torch.zeros(len(lengths), max(lengths))
        # The others see all before them.
        biases[: len(singles)].masked_fill_(unseen_places(singles, max(lengths)), -torch.inf)
        return biases

    def _together(self, spans: list[Span], tables: list[list[int]]) -> Together | None:
        if not self.kernels.gathers_together:
            return None
        page_size = self.cache.shape.page_size
        wholes: list[int] = []
        for span in spans:
            whole = 0 if span.is_partial else span.reach.start // page_size
            wholes += [whole] * (span.end - span.begin)
        sharing = find_sharing(tables, wholes, page_size)
        return Together(sharing, self.num_heads) if sharing.num_spared >= _WORTH else None

    def _longer(self, span: Span) -> CausalRow | PrefillRow:
        if span.is_partial:
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

    @property
    def causal_rows(self) -> list[CausalRow]:
        return [row for row in self.longer if isinstance(row, CausalRow)]

    @property
    def has_torch_rows(self) -> bool:
        return len(self.causal_rows) < len(self.longer)

    @property
    def can_walk(self) -> bool:
        """All rows are one token each, which sees all before it."""
        singles = self.singles
        return not self.longer and singles is not None and singles.biases is None

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
            None if rows.together is None else byref(rows.together.at),
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


def _num_short(spans: list[Span]) -> int:
    """How many at the beginning are short and causal."""
    return sum(
        1 for _ in takewhile(lambda s: s.end - s.begin <= _SHORT and not s.is_partial, spans)
    )
