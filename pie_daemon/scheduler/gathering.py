"""Gives programs that a batch has answered a moment to come back, so that they join the next one.

A program that takes its tokens by forward passes asks for the next one as soon as it has the last.
A batch that does not wait for it leaves without it, and from then on there are two groups of
programs that take turns, each in a batch that is hardly cheaper than one for all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping

from pie_daemon.scheduler.company import Awake, Company, nobody
from pie_daemon.scheduler.request import Request

LONGEST_S = 0.1
"""However long a batch takes: a program that is away for longer does something else."""


def num_prompt_tokens(requests: Iterable[Request]) -> int:
    """That these have computed beyond one for each, whatever is found in the cache."""
    return sum([max(0, request.context.num_pending - 1) for request in requests])


class Gathering:
    """When the next batch should leave. No clock of its own; the lock is the caller's.

    Waiting costs every row that is here the time waited; leaving costs every row that is missing
    the time of a batch. It waits until the first has grown to the second, so that together they
    are never more than twice the lesser one. Missed are the rows whose programs came back in time
    when they were answered before. Of a program that was never answered before, one that asks pass
    by pass is missed, and one that has had a whole answer most likely ends.
    """

    def __init__(self, share: float = 1.0, awake: Awake = nobody) -> None:
        """`share`: of what leaving costs, that waiting may cost; 0 never waits."""
        self._share = share
        self._company = Company(awake, share)
        self._batch_s = 0.0
        self._token_s = 0.0
        self._answered_s: dict[str, float] = {}
        self._missing: Counter[str] = Counter()
        self._is_quick: dict[str, bool] = {}
        self._here = 0
        self._since_s = 0.0
        self._spent = 0.0  # row seconds of those that were here since then,
        self._counted_s = 0.0  # counted until then
        self._wake_at = 0

    def computed(self, batch_s: float) -> None:
        """What a batch took that had no prompts in it."""
        self._batch_s = batch_s if not self._batch_s else (self._batch_s + batch_s) / 2

    def computed_prompts(self, batch_s: float, num_tokens: int) -> None:
        """What a batch took that had so many tokens more than rows."""
        token_s = max(0.0, batch_s - self._batch_s) / num_tokens
        self._token_s = token_s if not self._token_s else (self._token_s + token_s) / 2

    def answered(
        self, rows: Mapping[str, int], now_s: float, by_passes: Container[str] = ()
    ) -> None:
        """So many rows of these owners have ended in the last batch; passes of some of them."""
        self._missing.clear()
        for owner, num_rows in rows.items():
            self._answered_s[owner] = now_s
            if self._is_quick.setdefault(owner, owner in by_passes):
                self._missing[owner] = num_rows
        self._spent, self._since_s, self._counted_s = 0.0, now_s, now_s
        self._wake_at = self._missing.total() // 2

    def came(self, owner: str, now_s: float, num_tokens: int = 1) -> bool:
        """It asks for something, with so many tokens to compute. Whether the scheduler should look
        what there is now."""
        answered_s = self._answered_s.pop(owner, None)
        if answered_s is not None and now_s - answered_s <= self._longest_s(num_tokens - 1):
            self._is_quick[owner] = True
        if not self._missing.pop(owner, 0):
            return True
        self._count(now_s)
        self._here += 1
        return self._here == 1 or self._missing.total() <= self._wake_at

    def rested(self, now_s: float) -> None:
        """Somebody asks for something, after a while in which nobody did."""
        self._company.rested(now_s, self._batch_s)

    def gone(self, owner: str) -> None:
        """It will not come back."""
        self._missing.pop(owner, None)
        self._answered_s.pop(owner, None)
        self._is_quick.pop(owner, None)

    def patience_s(self, num_here: int, now_s: float, num_prompt_tokens: int = 0) -> float:
        """How long to wait, unless `came` says otherwise; 0: the batch should leave.

        `num_prompt_tokens`: that are here, beyond one for each row.
        """
        answered_s = self._for_those_answered(num_here, now_s, num_prompt_tokens)
        return answered_s or self._company.patience_s(num_here, now_s)

    def _for_those_answered(self, num_here: int, now_s: float, num_prompt_tokens: int) -> float:
        self._count(now_s)
        self._here = num_here
        num_missing = self._missing.total()
        if not num_here or not num_missing:
            return 0.0
        cost_s = self._cost_s(num_prompt_tokens)
        left_s = min(
            (num_missing * cost_s * self._share - self._spent) / num_here,
            self._since_s + self._longest_s(num_prompt_tokens) - now_s,
        )
        if left_s <= 0:
            self._is_quick.update(dict.fromkeys(self._missing, False))
            self._missing.clear()
            return 0.0
        self._wake_at = num_missing // 2
        return left_s

    def _count(self, now_s: float) -> None:
        self._spent += self._here * (now_s - self._counted_s)
        self._counted_s = now_s

    def _cost_s(self, num_prompt_tokens: int) -> float:
        return self._batch_s + num_prompt_tokens * self._token_s

    def _longest_s(self, num_prompt_tokens: int) -> float:
        return min(LONGEST_S, self._cost_s(num_prompt_tokens) * self._share)
