"""A batch as attention kernels over pages want it: index arrays on the host, no kernel needed.

Rows fall into three groups, each one call of a kernel: rows of one token that see all before it,
longer ones that are causal, and those that only a mask describes. All of them go through the
tables of what they reach (`reach`), in which pages wholly hidden are missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from pie_backend.engine.ragged import RaggedBatch, Span

Ints = npt.NDArray[np.int32]
Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PageTables:
    """Of R rows. Row i reads pages indices[indptr[i]:indptr[i + 1]], of the last one only the first
    last_page_len[i] places, its own tokens' included."""

    indptr: Ints
    """[R + 1]"""
    indices: Ints
    last_page_len: Ints
    """[R], in [1, page_size]"""


@dataclass(frozen=True, slots=True)
class Group:
    places: list[int]
    """Of its tokens in the flat batch, ascending."""
    query_indptr: Ints
    """[R + 1]: row i has tokens [query_indptr[i], query_indptr[i + 1]) of the group."""
    tables: PageTables
    mask: Bits | None = None
    """One row after the other, in it one token after the other: does it see the place? None:
    it sees all up to itself."""


@dataclass(frozen=True, slots=True)
class PagedPlan:
    tables: PageTables
    """Of all rows in the order of the flat batch: where new keys and values go."""
    rows: Ints
    """[N]: which row each token belongs to."""
    places: Ints
    """[N]: each token's place in what its row reaches."""
    decode: Group | None
    causal: Group | None
    masked: Group | None

    @property
    def groups(self) -> list[Group]:
        return [group for group in (self.decode, self.causal, self.masked) if group is not None]


def plan_pages(batch: RaggedBatch, page_size: int) -> PagedPlan:
    spans = batch.spans
    masked = [span for span in spans if span.is_partial]
    plain = [span for span in spans if span.row.attention is None and not span.reach.hidden]
    lengths = [span.end - span.begin for span in spans]
    places = [np.arange(n) + span.reach.start for n, span in zip(lengths, spans, strict=True)]
    return PagedPlan(
        tables=_tables(spans, page_size),
        rows=np.repeat(np.arange(len(spans), dtype=np.int32), lengths),
        places=np.concatenate(places).astype(np.int32),
        decode=_group([span for span in plain if len(span.row.tokens) == 1], page_size),
        causal=_group([span for span in plain if len(span.row.tokens) > 1], page_size),
        masked=_group(masked, page_size, is_masked=True),
    )


def _group(spans: Sequence[Span], page_size: int, *, is_masked: bool = False) -> Group | None:
    if not spans:
        return None
    return Group(
        places=[place for span in spans for place in range(span.begin, span.end)],
        query_indptr=_indptr(span.end - span.begin for span in spans),
        tables=_tables(spans, page_size),
        mask=np.concatenate([seen_by(span).ravel() for span in spans]) if is_masked else None,
    )


def _tables(spans: Sequence[Span], page_size: int) -> PageTables:
    reaches = [span.reach for span in spans]
    ends = [span.reach.start + span.end - span.begin for span in spans]
    return PageTables(
        indptr=_indptr(len(reach.pages) for reach in reaches),
        indices=np.concatenate([np.array(reach.pages, np.int32) for reach in reaches]),
        last_page_len=np.array([(end - 1) % page_size + 1 for end in ends], np.int32),
    )


def seen_by(span: Span) -> Bits:
    """[tokens, places it reaches, its own tokens' included]"""
    row, reach = span.row, span.reach
    num_tokens = len(row.tokens)
    num_places = reach.start + num_tokens
    if row.attention is not None:
        packed = np.frombuffer(b"".join(row.attention), np.uint8).reshape(num_tokens, -1)
        bits = np.unpackbits(packed, axis=1, count=num_places, bitorder="little")
        return bits.view(np.bool_)
    seen = np.tri(num_tokens, num_places, reach.start, dtype=np.bool_)
    for begin, end in reach.hidden:
        seen[:, begin:end] = False
    own = np.arange(num_tokens)
    seen[own, reach.start + own] = True  # no token hides from itself
    return seen


def _indptr(lengths: Iterable[int]) -> Ints:
    return np.array([0, *accumulate(lengths)], np.int32)
