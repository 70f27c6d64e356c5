"""What the tokens of a context see of those before them: who was hidden when each was computed.

KV depends on what its token saw, so the record is kept per token, as runs: from one token on, these
ranges were hidden. It lasts as long as the tokens do, so that computing them again, in this context
or in one made of its journal, gives the same KV. A token always sees itself.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from pie_daemon.errors import PieError

Ranges = tuple[tuple[int, int], ...]
"""Half-open, in order, none empty, none touching another."""

MAX_RANGES = 8192
"""Of all runs of one context together: a bound on memory, and on what hiding costs."""


@dataclass(frozen=True, slots=True)
class Visibility:
    """Immutable, so that a fork shares it. Run i is of tokens [starts[i], starts[i + 1])."""

    starts: tuple[int, ...] = ()
    hidden: tuple[Ranges, ...] = ()
    """What the tokens of each run do not see; of those before starts[0] everything is visible."""

    @property
    def current(self) -> Ranges:
        """What tokens to come do not see."""
        return self.hidden[-1] if self.hidden else ()

    def hidden_from(self, index: int) -> Ranges:
        """What token `index` does not see."""
        run = bisect_right(self.starts, index) - 1
        return self.hidden[run] if run >= 0 else ()

    def end_of_run(self, index: int, end: int) -> int:
        """Tokens [index, this) see the same; at most `end`."""
        run = bisect_right(self.starts, index)
        return min(end, self.starts[run]) if run < len(self.starts) else end

    def changed(self, first: int, start: int, end: int, visible: bool) -> Visibility:
        """As seen by tokens from `first` on: [start, end) hidden or shown.

        Raises:
            PieError: exhausted, when the record would become too long.
        """
        if start == end:
            return self
        change = _without if visible else _with
        ranges = change(self.current, start, end)
        return self if ranges == self.current else self._cut(first)._then(first, ranges)

    def truncated(self, length: int) -> Visibility:
        """Of the first `length` tokens. What is hidden among them stays hidden, from the last of
        them as well: the next token is drawn from what it sees."""
        if not self.starts:
            return self
        last = max(0, length - 1)
        kept = self._cut(last)
        hidden = tuple(_clipped(ranges, length) for ranges in kept.hidden)
        return Visibility(kept.starts, hidden)._then(last, _clipped(self.current, length))

    def described(self, start: int, end: int) -> bytes:
        """Equal for equal tokens [start, end) only if they saw the same; empty if they saw all."""
        words = array("I")
        for first, ranges in self._runs(start, end):
            words.extend((first - start, len(ranges)))
            for bounds in ranges:
                words.extend(bounds)
        return words.tobytes()

    def row_hidden(self, start: int, end: int) -> list[tuple[int, int]]:
        """What a row of tokens [start, end), all of one run, does not see up to its end."""
        return list(_clipped(self.hidden_from(start), end))

    def _runs(self, start: int, end: int) -> Iterable[tuple[int, Ranges]]:
        """Runs of tokens [start, end) that may differ from seeing everything before them."""
        before: Ranges = ()
        first = start
        while first < end:
            ranges = _clipped(self.hidden_from(first), end)
            if ranges != before:
                yield first, ranges
            before = ranges
            first = self.end_of_run(first, end)

    def _cut(self, first: int) -> Visibility:
        """Without the runs that begin at `first` or later."""
        num_kept = bisect_right(self.starts, first - 1)
        return Visibility(self.starts[:num_kept], self.hidden[:num_kept])

    def _then(self, first: int, ranges: Ranges) -> Visibility:
        if ranges == self.current:
            return self
        if sum(map(len, self.hidden)) + len(ranges) + len(self.hidden) > MAX_RANGES:
            raise PieError(
                "exhausted",
                f"a context keeps a record of {MAX_RANGES} hidden ranges: hide longer ones, and "
                "more of them before tokens are computed, or truncate it",
            )
        return Visibility((*self.starts, first), (*self.hidden, ranges))


EVERYTHING = Visibility()


def num_visible(hidden: Ranges, length: int) -> int:
    """Of the first `length` tokens."""
    return length - sum(end - start for start, end in _clipped(hidden, length))


def _with(ranges: Ranges, start: int, end: int) -> Ranges:
    before = [bounds for bounds in ranges if bounds[1] < start]
    after = [bounds for bounds in ranges if bounds[0] > end]
    touching = ranges[len(before) : len(ranges) - len(after)]
    start = min([start, *(bounds[0] for bounds in touching)])
    end = max([end, *(bounds[1] for bounds in touching)])
    return (*before, (start, end), *after)


def _without(ranges: Ranges, start: int, end: int) -> Ranges:
    before = [(a, min(b, start)) for a, b in ranges if a < start]
    after = [(max(a, end), b) for a, b in ranges if b > end]
    return (*before, *after)


def _clipped(ranges: Ranges, length: int) -> Ranges:
    if not ranges or ranges[-1][1] <= length:
        return ranges
    return tuple((start, min(end, length)) for start, end in ranges if start < length)
