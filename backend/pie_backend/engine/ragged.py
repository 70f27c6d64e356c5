"""Turns the rows of a batch into flat tensors, decode rows first."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import torch

from pie_backend.batch import Row
from pie_backend.engine.reach import Reach, reach_of

_CPU = torch.device("cpu")


class Span(msgspec.Struct, frozen=True, gc=False):
    """A row's tokens [begin, end) in the flat batch."""

    row: Row
    begin: int
    end: int
    reach: Reach

    @property
    def is_partial(self) -> bool:
        """There is something before the row's tokens, or among them, that they do not see."""
        return bool(self.reach.hidden) or self.row.attention is not None

    def pages_to_come(self, page_size: int) -> list[int]:
        """Those that it reaches, and behind them those that the row has for later tokens."""
        end = self.row.start + len(self.row.tokens)
        return self.reach.pages + self.row.pages[-(-end // page_size) :]


@dataclass(frozen=True, slots=True)
class RaggedBatch:
    spans: list[Span]
    """By rising number of tokens, and those of equally many by rising number of pages."""
    num_single: int
    """How many spans hold one token; they are spans[:num_single] and tokens [0, num_single)."""
    order: list[int]
    """order[i]: the place of spans[i]'s row in the batch."""
    tokens: torch.Tensor
    """int64 [N]"""
    positions: torch.Tensor
    """int64 [N]"""
    slots: torch.Tensor
    """int64 [N]: where each token's key and value go, page * page_size + offset."""
    entered_pages: list[int]
    """Pages whose first position is written by this batch."""


def flatten(rows: list[Row], page_size: int, place: torch.device = _CPU) -> RaggedBatch:
    """Tensors are at `place`."""
    reaches = [reach_of(row, page_size) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].tokens), reaches[i].start))
    spans: list[Span] = []
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    entered: list[int] = []
    for i in order:
        row = rows[i]
        end = row.start + len(row.tokens)
        spans.append(Span(row, len(tokens), len(tokens) + len(row.tokens), reaches[i]))
        tokens += row.tokens
        positions += row.positions or range(row.start, end)
        slots += _slots(row, end, page_size)
        entered += row.pages[-(-row.start // page_size) : -(-end // page_size)]
    return RaggedBatch(
        spans=spans,
        num_single=sum(len(row.tokens) == 1 for row in rows),
        order=order,
        tokens=torch.tensor(tokens, device=place),
        positions=torch.tensor(positions, device=place),
        slots=torch.tensor(slots, device=place),
        entered_pages=entered,
    )


def _slots(row: Row, end: int, page_size: int) -> list[int]:
    pages = row.pages
    return [pages[p // page_size] * page_size + p % page_size for p in range(row.start, end)]


def index_of(places: list[int], place: torch.device) -> slice | torch.Tensor:
    """Of tokens in the flat batch, ascending; a slice where they are neighbours."""
    begin, end = places[0], places[-1] + 1
    if end - begin == len(places):
        return slice(begin, end)
    return torch.tensor(places, device=place)
