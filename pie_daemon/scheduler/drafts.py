"""Guesses of the next tokens from repetitions: after the same few tokens comes what came before.

A context is searched for the longest match of its last tokens, through an index that grows with it;
what followed the match is the draft. Drafts change no output, only how many tokens a step makes.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

MAX_DRAFT = 32
MAX_MATCH = 16
_MAX_INDEXED = 4096
"""Tokens taken in at once: a long prompt must not hold up the scheduler."""
_MAX_CANDIDATES = 8
"""Earlier places looked at for one draft, the latest first."""


@dataclass(frozen=True, slots=True)
class DraftParams:
    max_draft: int = 8
    """Tokens drafted in one step."""
    min_match: int = 2
    """So many of the last tokens must have occurred before."""
    max_match: int = 4
    """Of several places, the longest match up to so many tokens wins, then the latest."""


class NgramIndex:
    """Where each run of `min_match` tokens occurred, as a chain from the latest to the first."""

    def __init__(self, params: DraftParams) -> None:
        self._params = params
        self._latest: dict[tuple[int, ...], int] = {}
        self._earlier = array("I")
        """At the place of a run, the one before it of the same run; 0: there is none."""

    def update(self, journal: Sequence[int]) -> None:
        """Takes in the runs that some token of the journal follows; a long rest next time."""
        begin = len(self._earlier)
        for end in range(begin, min(len(journal), begin + _MAX_INDEXED)):
            run = self._run(journal, end)
            self._earlier.append(self._latest.get(run, 0))
            if end >= self._params.min_match:
                self._latest[run] = end

    def draft(self, journal: Sequence[int], num_tokens: int) -> list[int]:
        """What followed the best match, repeated where it reaches the end of the journal."""
        place = self._best_place(journal)
        if place is None:
            return []
        period = len(journal) - place
        repeats = list(journal[place : place + num_tokens])
        return [repeats[i % period] for i in range(num_tokens)]

    def _run(self, journal: Sequence[int], end: int) -> tuple[int, ...]:
        return tuple(journal[max(0, end - self._params.min_match) : end])

    def _best_place(self, journal: Sequence[int]) -> int | None:
        run = self._run(journal, len(journal))
        place, best, longest = self._latest.get(run, 0), None, 0
        for _ in range(_MAX_CANDIDATES):
            if place == 0 or longest == self._params.max_match:
                break
            length = self._match_length(journal, place)
            if length > longest:
                best, longest = place, length
            place = self._earlier[place]
        return best

    def _match_length(self, journal: Sequence[int], place: int) -> int:
        """Tokens before `place` that are equal to those at the end, `max_match` at most."""
        length = self._params.min_match
        while (
            length < min(place, self._params.max_match)
            and journal[place - 1 - length] == journal[-1 - length]
        ):
            length += 1
        return length


class DraftLength:
    """How many tokens are worth a guess: more after right guesses, fewer after wrong ones.

    A guess costs computing and saves a step, which is the dearer the fewer rows share it: so with
    more rows a larger part has to come true. While it does not, guessing pauses, each time for
    longer, with one guess in between.
    """

    _ENOUGH = 0.6
    """Guesses that come true so often pay at any width; measured on a CPU, at 32 rows."""
    _ENOUGH_PER_ROW = 1 / 24
    _FIRST_RATE = 0.7
    _FIRST_PAUSE = 8
    _LONGEST_PAUSE = 512

    def __init__(self, max_draft: int) -> None:
        self._max_draft = max_draft
        self._length = max_draft
        self._rate = self._FIRST_RATE  # that came true, fading
        self._pause = self._FIRST_PAUSE
        self._num_to_skip = 0

    def next(self, num_rows: int) -> int:
        """Tokens to draft in a step with so many rows."""
        if self._num_to_skip == 0:
            if self._rate < min(self._ENOUGH, num_rows * self._ENOUGH_PER_ROW):
                self._num_to_skip = self._pause
                self._pause = min(self._LONGEST_PAUSE, 2 * self._pause)
            return self._length
        self._num_to_skip -= 1
        return 0

    def learn(self, num_drafted: int, num_accepted: int) -> None:
        self._rate += (num_accepted / num_drafted - self._rate) / 4
        if num_accepted == num_drafted:
            self._length = min(self._max_draft, 2 * self._length)
        else:
            self._length = min(self._max_draft, num_accepted + 1)
        if num_accepted:
            self._pause, self._num_to_skip = self._FIRST_PAUSE, 0
