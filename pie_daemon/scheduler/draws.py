"""What the draws of one generation depend on besides the logits, kept up token by token."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

from pie_backend.batch import Adjustment, Sample, Sampling, SeenTokens


class Draws:
    """A draw after drafts sees what it would see had each of them been drawn."""

    __slots__ = ("_drawn", "_prompt", "_same", "_sampling", "counts", "num_drawn")

    def __init__(self, sampling: Sampling, prompt: Iterable[int]) -> None:
        adjustment = sampling.adjustment or Adjustment()
        self._sampling = sampling
        # Sent with every batch: once each is enough.
        self._prompt = packed(dict.fromkeys(prompt)) if adjustment.counts_prompt else b""
        self._drawn = array("i")
        self.counts = adjustment.looks_back
        """Every token drawn changes what the next one is drawn from."""
        self.num_drawn = 0
        is_same = not self.counts and sampling.temperature == 0
        self._same = [Sample(0, sampling)] if is_same else None
        """Greedy draws do not look at their number."""

    def take(self, token: int) -> None:
        """Takes in a drawn token."""
        self.num_drawn += 1
        if self.counts:
            self._drawn.append(token)

    def next(self) -> list[Sample]:
        """After a row of one token, without drafts and masks."""
        if self._same is not None:
            return self._same
        return [self._sample(0)]

    def samples(
        self, index: int, drafts: Sequence[int], masks: Sequence[bytes | None] | None = None
    ) -> list[Sample]:
        """After a row's token `index` and after each of the drafts that follow it there, with what
        may be drawn in each place."""
        if not drafts and masks is None:
            return [self._sample(index)]
        allowed = masks or [None] * (1 + len(drafts))
        samples = [self._sample(index, allowed[0])]
        for place, draft in enumerate(drafts, start=1):
            self.take(draft)
            samples.append(self._sample(index + place, allowed[place]))
        for _ in drafts:
            self._take_back()
        return samples

    def _sample(self, index: int, mask: bytes | None = None) -> Sample:
        seen = SeenTokens(self._prompt, self._drawn.tobytes()) if self.counts else None
        return Sample(index, self._sampling, self.num_drawn, seen, mask)

    def _take_back(self) -> None:
        self.num_drawn -= 1
        if self.counts:
            del self._drawn[-1]


def packed(tokens: Iterable[int]) -> bytes:
    """As in `SeenTokens`."""
    return array("i", tokens).tobytes()
