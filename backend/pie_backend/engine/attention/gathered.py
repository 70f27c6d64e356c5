"""Attention with plain torch, on any device: decode rows in padded groups, longer rows one by one.

Two batched products with a softmax between them beat the fused kernel on the processors measured,
up to four times in bfloat16, except for a row or two that decode.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pie_backend.engine.kv_cache import KVCache
from pie_backend.engine.masks import unpack
from pie_backend.engine.ops.linear import product_dtype
from pie_backend.engine.ragged import RaggedBatch, Span
from pie_backend.engine.reach import Reach

# A group's gathered keys and values should stay in cache, and padding should stay small.
_MAX_GROUP_TOKENS = 16384
_MAX_PADDING = 2
_SMALL_PAGES = 8
# From this many rows on, two batched products beat the fused kernel, whose cost is per row.
_MIN_PRODUCT_ROWS = 3
# Queries of one product: small enough that scores stay in cache and little is computed in vain.
_QUERY_TOKENS = 128


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Rows of one token each, [begin, end) in the flat batch, padded to the longest."""

    begin: int
    end: int
    blocks: torch.Tensor
    """int64: the blocks of every row's padded page table."""
    bias: torch.Tensor
    """[H * rows, 1, length]: 0 where the row reaches, -inf beyond."""


@dataclass(frozen=True, slots=True)
class QueryBlock:
    """Tokens [begin, end) of a row; what they see together bounds the products."""

    begin: int
    end: int
    context: int
    """Places up to the last one that one of them sees."""
    bias: torch.Tensor
    """[queries of a head * tokens, context]: 0 where a token sees, -inf beyond it."""


@dataclass(frozen=True, slots=True)
class PrefillRow:
    """A row of several tokens, [begin, end) in the flat batch."""

    begin: int
    end: int
    blocks: torch.Tensor
    """int64: the blocks of the row's page table."""
    queries: list[QueryBlock]


class GatheredAttention:
    def __init__(self, cache: KVCache, num_heads: int) -> None:
        self.cache = cache
        self.num_heads = num_heads

    def plan(self, batch: RaggedBatch) -> GatheredStep:
        singles = batch.spans[: batch.num_single]
        page_size = self.cache.shape.page_size
        groups = [self._decode_group(group) for group in _group(singles, page_size)]
        rows = [self.prefill_row(span) for span in batch.spans[batch.num_single :]]
        return GatheredStep(self, batch.slots, groups, rows)

    def _decode_group(self, spans: list[Span]) -> DecodeGroup:
        shape = self.cache.shape
        reaches = [span.reach for span in spans]
        width = max(reach.num_pages for reach in reaches)
        tables = [_padded_table(reach, width) for reach in reaches]
        bias = _bias(unseen_places(spans, width * shape.page_size), self.cache)
        return DecodeGroup(
            begin=spans[0].begin,
            end=spans[-1].end,
            blocks=self.cache.block_index(torch.tensor(tables, device=self.cache.place).view(-1)),
            bias=bias.repeat(shape.num_kv_heads, 1).unsqueeze(1),
        )

    def prefill_row(self, span: Span) -> PrefillRow:
        num_tokens = len(span.row.tokens)
        pages = torch.tensor(span.reach.pages, device=self.cache.place)
        queries = [
            self._query_block(span, begin, min(begin + _QUERY_TOKENS, num_tokens))
            for begin in range(0, num_tokens, _QUERY_TOKENS)
        ]
        return PrefillRow(span.begin, span.end, self.cache.block_index(pages), queries)

    def prefill(self, layer: int, row: PrefillRow, q: torch.Tensor) -> torch.Tensor:
        """q [tokens, Hq, D] -> [tokens, Hq * D]"""
        kv = self.cache.gather(layer, row.blocks, 1)[:, :, 0]  # [2, H, length, D]
        parts = [_attend_block(block, q, kv) for block in row.queries]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _query_block(self, span: Span, begin: int, end: int) -> QueryBlock:
        masked = span.row.attention is not None
        bias = (self._masked if masked else self._causal)(span, begin, end)
        repeated = bias.repeat(self.num_heads // self.cache.shape.num_kv_heads, 1)
        return QueryBlock(begin, end, bias.shape[-1], repeated)

    def _masked(self, span: Span, begin: int, end: int) -> torch.Tensor:
        """A bias [queries, context]; a token may see later ones, which the row computes as well."""
        attention = span.row.attention or []
        sees = unpack(attention[begin:end], span.row.start + len(attention))
        return _bias(~sees, self.cache)

    def _causal(self, span: Span, begin: int, end: int) -> torch.Tensor:
        """A bias [queries, context up to the last of them]"""
        reach, start = span.reach, span.reach.start
        size, dtype = (end - begin, start + end), self.cache.shape.dtype
        bias = torch.full(size, -torch.inf, dtype=dtype, device=self.cache.place)
        bias.triu_(start + begin + 1)
        for unseen_from, unseen_to in reach.hidden:
            bias[:, unseen_from:unseen_to] = -torch.inf
        if reach.hidden:
            bias.diagonal(start + begin).zero_()  # no token hides from itself
        return bias


@dataclass(frozen=True, slots=True)
class GatheredStep:
    attention: GatheredAttention
    slots: torch.Tensor
    groups: list[DecodeGroup]
    rows: list[PrefillRow]

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        self.attention.cache.write(layer, self.slots, k, v)
        parts = [self._decode(layer, group, q[group.begin : group.end]) for group in self.groups]
        parts += [self.attention.prefill(layer, row, q[row.begin : row.end]) for row in self.rows]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _decode(self, layer: int, group: DecodeGroup, q: torch.Tensor) -> torch.Tensor:
        """q [rows, Hq, D] -> [rows, Hq * D]; the queries of a group share their head's keys."""
        num_rows, num_heads, head_dim = q.shape
        cache = self.attention.cache
        num_kv_heads = cache.shape.num_kv_heads
        kv = cache.gather(layer, group.blocks, num_rows)  # [2, H, rows, length, D]
        shared = q.view(num_rows, num_kv_heads, num_heads // num_kv_heads, head_dim)
        if num_rows < _MIN_PRODUCT_ROWS:
            bias = group.bias.view(num_kv_heads, num_rows, 1, -1).transpose(0, 1)
            out = F.scaled_dot_product_attention(
                shared, kv[0].transpose(0, 1), kv[1].transpose(0, 1), attn_mask=bias
            )
            return out.reshape(num_rows, num_heads * head_dim)
        by_head = shared.transpose(0, 1)  # [H, rows, queries, D]
        flat = (num_kv_heads * num_rows, -1, head_dim)
        out = _attend_by_products(
            by_head.reshape(flat), kv[0].view(flat), kv[1].view(flat), group.bias
        )
        return out.view(by_head.shape).transpose(0, 1).reshape(num_rows, num_heads * head_dim)


def _bias(unseen: torch.Tensor, cache: KVCache) -> torch.Tensor:
    """-inf where nothing is seen, 0 elsewhere"""
    bias = torch.zeros(unseen.shape, dtype=cache.shape.dtype)
    return bias.masked_fill_(unseen, -torch.inf).to(cache.place)


def unseen_places(spans: list[Span], width: int) -> torch.Tensor:
    """bool [rows, width] of rows of one token: what lies beyond it or is hidden from it"""
    reaches = [span.reach for span in spans]
    lengths = torch.tensor([[reach.start + 1] for reach in reaches])
    beyond = torch.arange(width) >= lengths
    for unseen, span in zip(beyond, spans, strict=True):
        if span.row.attention is not None:
            num_places = span.row.start + 1
            unseen[:num_places] = ~unpack(span.row.attention, num_places)[0]
    for unseen, reach in zip(beyond, reaches, strict=True):
        for unseen_from, unseen_to in reach.hidden:
            unseen[unseen_from:unseen_to] = True
        if reach.hidden:
            unseen[reach.start] = False  # no token hides from itself
    return beyond


def _attend_block(block: QueryBlock, q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
    """q [tokens, Hq, D], kv [2, H, length, D] -> [block's tokens, Hq * D]"""
    num_tokens, num_kv_heads, head_dim = block.end - block.begin, kv.shape[1], kv.shape[3]
    own = q[block.begin : block.end].view(num_tokens, num_kv_heads, -1, head_dim)
    by_head = own.permute(1, 2, 0, 3)  # [H, queries, tokens, D]
    seen = kv[:, :, : block.context]
    flat = by_head.reshape(num_kv_heads, -1, head_dim)
    out = _attend_by_products(flat, seen[0], seen[1], block.bias)
    return out.view(by_head.shape).permute(2, 0, 1, 3).reshape(num_tokens, -1)


def _attend_by_products(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """q [B, queries, D], k and v [B, length, D], bias [B or none, queries or 1, length] -> as q"""
    wide = product_dtype(q.dtype, q.device.type)
    keys = k.to(wide).transpose(1, 2)
    scores = torch.baddbmm(bias.to(wide), q.to(wide), keys, alpha=q.shape[-1] ** -0.5)
    return torch.bmm(scores.softmax(-1), v.to(wide)).to(q.dtype)


def _padded_table(reach: Reach, width: int) -> list[int]:
    """Padding repeats the row's own first page: never another row's, and masked anyway."""
    return reach.pages + [reach.pages[0]] * (width - reach.num_pages)


def _group(spans: list[Span], page_size: int) -> list[list[Span]]:
    """Cuts spans (sorted by length) where padding or size would grow too large."""
    groups: list[list[Span]] = []
    limit = 0
    for span in spans:
        pages = span.reach.num_pages
        full = groups and (len(groups[-1]) + 1) * pages * page_size > _MAX_GROUP_TOKENS
        if full or pages > limit:
            groups.append([])
            limit = max(pages * _MAX_PADDING, _SMALL_PAGES)
        groups[-1].append(span)
    return groups
