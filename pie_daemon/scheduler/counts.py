"""Token counts of one generation, kept up one token at a time and packed once per batch."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from pie_backend.batch import Adjustment, TokenCounts


class RunningCounts:
    """Every distinct token once, in the order of its first occurrence."""

    __slots__ = ("_num_prompt", "_packed_tokens", "_places", "_times", "_tokens")

    def __init__(self, prompt: Iterable[int]) -> None:
        self._places = {token: place for place, token in enumerate(dict.fromkeys(prompt))}
        self._num_prompt = len(self._places)
        self._tokens = array("i", self._places)
        self._times = array("i", bytes(self._tokens.itemsize * len(self._tokens)))
        self._packed_tokens: bytes | None = None
        """As long as no other token comes or goes."""

    def add(self, token: int) -> None:
        """Takes in a drawn token."""
        place = self._places.get(token)
        if place is not None:
            self._times[place] += 1
            return
        self._places[token] = len(self._tokens)
        self._tokens.append(token)
        self._times.append(1)
        self._packed_tokens = None

    def remove(self, token: int) -> None:
        """Takes back the token added last of those that are left."""
        place = self._places[token]
        self._times[place] -= 1
        if self._times[place] == 0 and place >= self._num_prompt:
            # Only a first occurrence leaves nothing, and nothing new has come after it.
            del self._places[token], self._tokens[place], self._times[place]
            self._packed_tokens = None

    def packed(self) -> TokenCounts:
        if self._packed_tokens is None:
            self._packed_tokens = self._tokens.tobytes()
        return TokenCounts(self._packed_tokens, self._times.tobytes())


def counts_for(adjustment: Adjustment | None, prompt: Iterable[int]) -> RunningCounts | None:
    """None: nothing looks at counts."""
    if adjustment is None:
        return None
    if adjustment.counts_prompt:
        return RunningCounts(prompt)
    return RunningCounts(()) if adjustment.counts_drawn else None
