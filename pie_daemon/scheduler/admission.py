"""Which waiting requests join the running ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from pie_daemon.scheduler.contexts import Context, ContextTable
from pie_daemon.scheduler.fairness import fair_order
from pie_daemon.scheduler.policy import Followers
from pie_daemon.scheduler.pressure import Expectation, suspend_idle
from pie_daemon.scheduler.request import Request
from pie_daemon.scheduler.reuse import Found


class PromisePages:
    """Admits a request when the pool can hold what it is promised, beside all other promises.

    The rule: the pages reserved for running requests never exceed the free ones. Why cached
    prefixes keep it true:

    - Cached pages count as free: whoever takes a page evicts one when no other is left, and only
      pages that nobody holds are cached.
    - Beginning with cached pages needs no more of the pool than computing them would (see
      `num_pages_to_take`), so a hit never keeps a request waiting that would fit without it.
    - Each holder of a published page beyond the first saves a page, and may need one to copy it;
      the last holder writes in place, and from its admission on nobody else can find that page.
    - A request that waits for a prefix waits for a running request that moved in the last batch,
      and those wait for no prefix: such waits form no circle and end when the leader does.

    Where pages are short, contexts that no running request uses are suspended, as many as it takes
    and only if that will do. A request that does not fit even so holds back those behind it, so
    that small ones do not starve it: its turn comes when running ones end. With nothing running,
    every request fits (`Limits.check_fits`).
    """

    def __init__(self, expectation: Expectation) -> None:
        self._expectation = expectation

    def admit(
        self,
        waiting: Iterable[Request],
        running: Collection[Request],
        contexts: ContextTable,
        followers: Followers,
        max_running: int,
    ) -> list[Request]:
        """Requests to admit now, with cached pages taken and `num_reserved` set."""
        room = _Room(running, contexts)
        admitted: list[Request] = []
        for request, found in followers.split_off(fair_order(waiting, self._cost)):
            if len(running) + len(admitted) >= max_running:
                break
            length = self._expectation.promise(request)
            usable = room.make(request.context, length, found)
            if usable is None:
                break
            contexts.adopt(request.context, usable)
            room.give(request, length)
            followers.lead(request.context)
            admitted.append(request)
        return admitted

    def _cost(self, request: Request) -> int:
        return max(1, self._expectation.promise(request) - request.context.num_computed)


class _Room:
    """Of the pool, while one round of admission goes on."""

    def __init__(self, running: Collection[Request], contexts: ContextTable) -> None:
        self._contexts = contexts
        self._busy = {request.context for request in running}
        self._num_reserved = sum(request.num_reserved for request in running)

    def make(self, context: Context, length: int, found: Found) -> Found | None:
        """What of the found pages is still there once there is room; None: there is too little."""
        contexts = self._contexts

        def short() -> int:
            need = contexts.num_pages_to_take(context, length, found)
            return need - (contexts.pool.num_free - self._num_reserved)

        if short() <= 0:
            return found
        if not self._can_make(context, length, found):
            return None
        suspend_idle(contexts, {*self._busy, context}, short)
        return contexts.find_cached(context)

    def give(self, request: Request, length: int) -> None:
        request.num_reserved = self._contexts.num_pages_to_take(request.context, length)
        self._num_reserved += request.num_reserved
        self._busy.add(request.context)

    def _can_make(self, context: Context, length: int, found: Found) -> bool:
        """Whether it would do to suspend every other context."""
        held = Counter(page for each in {*self._busy, context} for page in each.pages)
        need = self._contexts.num_pages_to_take(context, length, found, held.__getitem__)
        return need <= self._contexts.pool.num_pages - len(held) - self._num_reserved
