"""A burst inside the engine: what its passes have in common is worked out once.

Between two passes all that changes is which token a row is at. To check the batch, to flatten it
and to plan its attention anew costs a step of eight rows a thirtieth.
"""

from __future__ import annotations

from functools import cached_property
from typing import TypeVar

import torch

from pie_backend.batch import BackendInfo, Batch, BatchResult, Row
from pie_backend.engine.attention.base import AttentionStep
from pie_backend.engine.draw import draw
from pie_backend.engine.ragged import RaggedBatch
from pie_backend.engine.transformer import Decoder, Walk


class Planned:
    """A batch of rows of one token, and what was worked out to compute it."""

    def __init__(
        self, batch: Batch, flat: RaggedBatch, decoder: Decoder, step: AttentionStep
    ) -> None:
        """`decoder`: with the adapters that its rows want."""
        self.batch = batch
        self.flat = flat
        self.decoder = decoder
        self.rows = [span.row for span in flat.spans]
        self.is_plain = all(map(_is_plain, self.rows))
        """Each of them asks for its likeliest token, and for nothing else."""
        self._step = step

    @cached_property
    def walk(self) -> Walk | None:
        return self.decoder.walk(self.flat, self._step)

    def likeliest(self) -> BatchResult | None:
        """Where that is all that is asked for, and it can be had in one call."""
        if not self.is_plain or self.walk is None:
            return None
        found = self.walk.likeliest([row.tokens[0] for row in self.rows], goes_on=False)
        return BatchResult(self.batch.step, _in_order(found, self.flat.order))


def _is_plain(row: Row) -> bool:
    return len(row.samples) == 1 and row.samples[0].is_plain and not row.probes


class Course:
    """The rows of a batch, one token each, on their way through a burst."""

    def __init__(self, planned: Planned, walk: Walk, info: BackendInfo) -> None:
        self._planned = planned
        self._walk = walk
        self._number = 0
        self._num_passes = min(
            min(len(row.pages) * info.page_size, info.max_context) - row.start
            for row in planned.rows
        )  # that there is room for

    @classmethod
    def begin(cls, planned: Planned | None, batch: Batch, info: BackendInfo) -> Course | None:
        """Behind that batch; None: its rows have to be planned anew for every pass."""
        if planned is None or planned.batch is not batch or planned.walk is None:
            return None
        return cls(planned, planned.walk, info)

    def leads_to(self, number: int) -> bool:
        return number == self._number + 1 < self._num_passes

    def compute(self, drawn: list[list[int]], draws_on: torch.device) -> BatchResult:
        """The next pass; `drawn` by the rows of the one before."""
        self._number += 1
        order = self._planned.flat.order
        tokens = [drawn[row][0] for row in order]
        if self._planned.is_plain:
            found = self._walk.likeliest(tokens)
            return BatchResult(self._planned.batch.step, _in_order(found, order))
        return self._draw(self._walk.states(tokens), draws_on)

    def _draw(self, states: torch.Tensor, draws_on: torch.device) -> BatchResult:
        planned = self._planned
        samples = [row.samples[0].later(self._number) for row in planned.rows]
        with torch.inference_mode():
            logits = planned.decoder.head(states).to(draws_on)
            tokens, logprobs = draw(logits, samples, planned.decoder.likeliest)
        order = planned.flat.order
        found = _in_order(logprobs, order) if logprobs else []
        return BatchResult(planned.batch.step, _in_order(tokens, order), found)


_T = TypeVar("_T")


def _in_order(answers: list[_T], order: list[int]) -> list[list[_T]]:
    """The only answer to each row, by its place in the batch."""
    found: list[list[_T]] = [[]] * len(order)
    for place, one in zip(order, answers, strict=True):
        found[place] = [one]
    return found
