"""What the draws of one generation depend on besides the logits, kept up token by token."""

from __future__ import annotations

from collections.abc import Sequence

from pie_backend.batch import Sample, Sampling
from pie_daemon.scheduler.counts import RunningCounts


class Draws:
    """A draw after drafts sees what it would see had each of them been drawn."""

    __slots__ = ("_counts", "_same", "_sampling", "counts", "num_drawn")

    def __init__(self, sampling: Sampling, counts: RunningCounts | None) -> None:
        self._sampling = sampling
        self._counts = counts
        self.counts = counts is not None
        """Every token drawn changes what the next one is drawn from."""
        self.num_drawn = 0
        is_same = counts is None and sampling.temperature == 0
        self._same = [Sample(0, sampling)] if is_same else None
        """Greedy draws do not look at their number."""

    def take(self, token: int) -> None:
        """Takes in a drawn token."""
        self.num_drawn += 1
        if self._counts is not None:
            self._counts.add(token)

    def next(self) -> list[Sample]:
        """After a row of one token, without drafts and masks."""
        if self._same is not None:
            return self._same
        counts = None if self._counts is None else self._counts.packed()
        return [Sample(0, self._sampling, self.num_drawn, counts)]

    def samples(
        self, index: int, drafts: Sequence[int], masks: Sequence[bytes | None] | None = None
    ) -> list[Sample]:
        """After a row's token `index` and after each of the drafts that follow it there, with what
        may be drawn in each place."""
        if not drafts and masks is None:
            counts = None if self._counts is None else self._counts.packed()
            return [Sample(index, self._sampling, self.num_drawn, counts)]
        allowed = masks or [None] * (1 + len(drafts))
        samples = [self._sample(index, allowed[0])]
        for place, draft in enumerate(drafts, start=1):
            self.take(draft)
            samples.append(self._sample(index + place, allowed[place]))
        for draft in reversed(drafts):
            self._take_back(draft)
        return samples

    def _sample(self, index: int, mask: bytes | None) -> Sample:
        counts = None if self._counts is None else self._counts.packed()
        return Sample(index, self._sampling, self.num_drawn, counts, mask)

    def _take_back(self, token: int) -> None:
        self.num_drawn -= 1
        if self._counts is not None:
            self._counts.remove(token)
