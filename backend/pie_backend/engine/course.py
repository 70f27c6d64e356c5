"""A burst inside the engine: what its passes have in common is worked out once.

Between two passes all that changes is which token a row is at. To check the batch, to flatten it
and to plan its attention anew costs a step of eight rows a thirtieth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pie_backend.batch import BackendInfo, Batch, BatchResult
from pie_backend.engine.answer import answer_singles
from pie_backend.engine.attention.base import AttentionStep
from pie_backend.engine.kv_cache import KVCache
from pie_backend.engine.ragged import RaggedBatch
from pie_backend.engine.transformer import Decoder


@dataclass(frozen=True, slots=True)
class Planned:
    """A batch, and what was worked out to compute it."""

    batch: Batch
    flat: RaggedBatch
    decoder: Decoder
    """With the adapters that its rows want."""
    step: AttentionStep


class Course:
    """The rows of a batch, one token each, on their way through a burst."""

    def __init__(self, planned: Planned, info: BackendInfo) -> None:
        self._planned = planned
        self._number = 0
        self._page_size = page_size = info.page_size
        self._rows = [span.row for span in planned.flat.spans]
        ends = [min(len(row.pages) * page_size, info.max_context) for row in self._rows]
        self._num_passes = min(
            end - row.start for end, row in zip(ends, self._rows, strict=True)
        )  # that there is room for
        self._entering: list[list[int]] = [[] for _ in range(page_size)]
        for place, row in enumerate(self._rows):
            self._entering[-row.start % page_size].append(place)

    def advance(self, batch: Batch, number: int, drawn: list[list[int]]) -> bool:
        """To that pass of the batch's burst; False: it is not the next one, or has to be planned
        like any other batch. `drawn`: by the rows of the pass before."""
        is_next = batch is self._planned.batch and number == self._number + 1 < self._num_passes
        if not is_next or not self._planned.step.advance():
            return False
        self._number = number
        flat = self._planned.flat
        flat.tokens.copy_(torch.tensor([drawn[row][0] for row in flat.order]))
        flat.positions.add_(1)
        flat.slots.add_(1)
        return True

    def compute(self, cache: KVCache, decoder: Decoder, draws_on: torch.device) -> BatchResult:
        """The pass that it has advanced to; `decoder` has the head."""
        self._enter_pages(cache)
        planned, flat = self._planned, self._planned.flat
        hidden = planned.decoder.hidden_states(flat.tokens, flat.positions, planned.step)
        samples = [row.samples[0].later(self._number) for row in self._rows]
        return answer_singles(planned.batch.step, decoder, hidden, samples, flat.order, draws_on)

    def _enter_pages(self, cache: KVCache) -> None:
        places = self._entering[self._number % self._page_size]
        if not places:
            return
        pages = [self._page_of(place) for place in places]
        firsts = torch.tensor(pages, device=cache.place) * self._page_size
        self._planned.flat.slots[places] = firsts
        cache.clear_pages(pages)

    def _page_of(self, place: int) -> int:
        row = self._rows[place]
        return row.pages[(row.start + self._number) // self._page_size]
