"""Which adapter computes which tokens of a context: KV depends on it and stays as it was made."""

from __future__ import annotations

import struct
from bisect import bisect_right
from operator import itemgetter

Run = tuple[int, str | None]
"""Where it begins, and the digest of its adapter; None is the model itself."""

_FIRST: Run = (0, None)
_OFFSET = struct.Struct("<I")


class AdapterRuns:
    """Runs of tokens with one adapter each; the last one has no end.

    They outlive the KV itself: computing a range anew takes the adapter that it was computed with.
    Only a request changes them, from the first token on that it computes.
    """

    __slots__ = ("_runs",)

    def __init__(self, runs: list[Run] | None = None) -> None:
        self._runs = runs or [_FIRST]

    def copy(self) -> AdapterRuns:
        return AdapterRuns(self._runs.copy())

    @property
    def runs(self) -> tuple[Run, ...]:
        return tuple(self._runs)

    @property
    def is_one(self) -> bool:
        """All tokens have the same."""
        return len(self._runs) == 1

    @property
    def used(self) -> set[str]:
        return {adapter for _, adapter in self._runs if adapter is not None}

    def at(self, token: int) -> str | None:
        """The adapter of the context's token of that number."""
        runs = self._runs
        return runs[0][1] if len(runs) == 1 else runs[self._find(token)][1]

    def end_after(self, token: int) -> int | None:
        """Where the token's run ends; None: it goes on for ever."""
        following = self._find(token) + 1
        return self._runs[following][0] if following < len(self._runs) else None

    def limit(self, start: int, num_tokens: int) -> int:
        """How many of so many tokens from `start` on can be in one row."""
        end = self.end_after(start)
        return num_tokens if end is None else min(num_tokens, end - start)

    def set_from(self, start: int, adapter: str | None) -> bool:
        """From `start` on every token is of that adapter; whether that is news."""
        if self.end_after(start) is None and self.at(start) == adapter:
            return False
        self.truncate(start)
        if not start:
            self._runs = [(0, adapter)]
        elif self._runs[-1][1] != adapter:
            self._runs.append((start, adapter))
        return True

    def truncate(self, length: int) -> None:
        """Forgets the runs that begin after `length` tokens."""
        while len(self._runs) > 1 and self._runs[-1][0] >= length:
            self._runs.pop()
        if not length:
            self._runs = [_FIRST]

    def content(self, start: int, end: int) -> bytes:
        """What tells pages [start, end) of equal tokens apart; nothing for the model itself."""
        if self._runs == [_FIRST]:
            return b""
        first, last = self._find(start), self._find(end - 1)
        runs = self._runs[first : last + 1]
        if len(runs) == 1 and runs[0][1] is None:
            return b""
        return b"".join(
            _OFFSET.pack(max(begin - start, 0)) + (adapter or "").encode() + b"\0"
            for begin, adapter in runs
        )

    def _find(self, token: int) -> int:
        if len(self._runs) == 1:
            return 0
        return bisect_right(self._runs, token, key=itemgetter(0)) - 1
