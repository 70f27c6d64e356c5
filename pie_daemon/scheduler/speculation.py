"""Speculation of one generation: drafts for its next row, and what became of them.

A row carries the last token and its drafts, with a sample after each. The draws are those of plain
decoding as long as the tokens before them are: so drafts are kept while each equals the token drawn
in its place, and the first token drawn otherwise is kept too. No output can change.
"""

from __future__ import annotations

from collections.abc import Sequence

from pie_daemon.scheduler.drafts import DraftLength, DraftParams, NgramIndex


class Speculation:
    def __init__(self, params: DraftParams) -> None:
        self._index = NgramIndex(params)
        self._length = DraftLength(params.max_draft)
        self.drafts: list[int] = []
        """Of the row that is being made or in flight."""
        self.num_drafted = 0
        self.num_accepted = 0

    def draft(self, journal: Sequence[int], num_tokens: int, num_rows: int) -> list[int]:
        """At most so many guesses of what follows the journal, for a batch of so many rows."""
        self._index.update(journal)
        num_tokens = min(num_tokens, self._length.next(num_rows))
        self.drafts = self._index.draft(journal, num_tokens) if num_tokens > 0 else []
        return self.drafts

    def keep(self, num_drafts: int) -> list[int]:
        """Of what `draft` gave: only so many can be verified."""
        self.drafts = self.drafts[:num_drafts]
        return self.drafts

    def settle(self, num_accepted: int) -> None:
        """So many of the drafts became tokens."""
        if self.drafts:
            self.num_drafted += len(self.drafts)
            self.num_accepted += num_accepted
            self._length.learn(len(self.drafts), num_accepted)
            self.drafts = []


def speculation_for(params: DraftParams | None) -> Speculation | None:
    """None: nothing is guessed, and nothing it would need is kept."""
    return None if params is None or params.max_draft == 0 else Speculation(params)
