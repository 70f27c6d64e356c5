"""After a rest, waits for the programs that were woken together with the first one that asks.

Messages of one moment, or a tool that answers many, wake programs that go one after the other. A
batch that leaves with the first of them is as dear as one for all, and those that are not in it end
a batch later, which is dear again.
"""

from __future__ import annotations

from collections.abc import Callable

BATCHES = 2
"""That it waits at most, so many times what a batch takes."""
LOOK_AGAIN_S = 0.0005
"""Who falls asleep without asking tells nobody."""
MOST_SKIPPED = 63
"""Rests after which it does not wait, once it has waited in vain several times in a row."""

Awake = Callable[[], tuple[int, int]]
"""Programs that were woken and have not begun to run, and those that run."""


def nobody() -> tuple[int, int]:
    return 0, 0


class Company:
    """No clock and no lock of its own. A program that is alone is never waited for.

    Those who are awake may want something else altogether, all the time. So each time that nobody
    came, twice as many rests go by until it waits again.
    """

    def __init__(self, awake: Awake = nobody, share: float = 1.0) -> None:
        """`share`: of the time that it may wait; 0 never waits."""
        self._awake = awake
        self._share = share
        self._until_s = 0.0
        self._wanted = 0
        self._first = 0
        """How many were here when it began to wait; 0: it did not wait."""
        self._skipped = 0
        self._to_skip = 0

    def rested(self, now_s: float, batch_s: float) -> None:
        """Somebody asks for something, after a while in which nobody did."""
        self._wanted = self._first = 0
        if self._to_skip:
            self._to_skip -= 1
        else:
            self._until_s = now_s + BATCHES * batch_s * self._share

    def patience_s(self, num_here: int, now_s: float) -> float:
        """How long to wait before looking again; 0: the batch should leave."""
        if not num_here or not self._until_s:
            return 0.0
        left_s = self._until_s - now_s
        if left_s <= 0 or not self._is_worth_it(num_here):
            self._end(num_here)
            return 0.0
        self._first = self._first or num_here
        return min(LOOK_AGAIN_S, left_s)

    def _is_worth_it(self, num_here: int) -> bool:
        num_waiting, num_running = self._awake()
        # One that runs may have asked already, one that waits for its turn has not.
        self._wanted = max(self._wanted, num_here + num_waiting)
        return num_here < self._wanted and num_waiting + num_running > 0

    def _end(self, num_here: int) -> None:
        self._until_s = 0.0
        if self._first:
            came = num_here > self._first
            self._skipped = 0 if came else min(2 * self._skipped + 1, MOST_SKIPPED)
            self._to_skip = self._skipped
