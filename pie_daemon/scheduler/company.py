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

Awake = Callable[[], tuple[int, int]]
"""Programs that were woken and have not begun to run, and those that run."""


def nobody() -> tuple[int, int]:
    return 0, 0


class Company:
    """No clock and no lock of its own. A program that is alone is never waited for."""

    def __init__(self, awake: Awake = nobody, share: float = 1.0) -> None:
        """`share`: of the time that it may wait; 0 never waits."""
        self._awake = awake
        self._share = share
        self._until_s = 0.0
        self._wanted = 0

    def rested(self, now_s: float, batch_s: float) -> None:
        """Somebody asks for something, after a while in which nobody did."""
        self._until_s = now_s + BATCHES * batch_s * self._share
        self._wanted = 0

    def patience_s(self, num_here: int, now_s: float) -> float:
        """How long to wait before looking again; 0: the batch should leave."""
        if not num_here or now_s >= self._until_s:
            return 0.0
        num_waiting, num_running = self._awake()
        # One that runs may have asked already, one that waits for its turn has not.
        self._wanted = max(self._wanted, num_here + num_waiting)
        if num_here >= self._wanted or not num_waiting + num_running:
            self._until_s = 0.0
            return 0.0
        return min(LOOK_AGAIN_S, self._until_s - now_s)
