"""Which waiting requests join the running ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from pie_daemon.scheduler.contexts import Context, ContextTable
from pie_daemon.scheduler.fairness import fair_order
from pie_daemon.scheduler.policy import Followers
from pie_daemon.scheduler.pressure import Expectation, suspend_idle
from pie_daemon.scheduler.request import Request
from pie_daemon.scheduler.reuse import Found


@dataclass(frozen=True, slots=True)
class Admitted:
    requests: list[Request]
    try_again: bool
    """The next batch may make others fit, although nothing else comes or goes."""


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

    Programs mostly go on where they have stopped, and at once. So that newcomers do not take the
    pages between two turns of a program, which would compute all of it again, a context that has
    just been used keeps its pages for some batches while others run; and of the families of a user
    those go first that have pages, as long as they are within a quantum of the others.
    """

    def __init__(
        self, expectation: Expectation, quantum_tokens: int = 1024, grace_batches: int = 16
    ) -> None:
        self._expectation = expectation
        self._quantum_tokens = quantum_tokens
        self._grace_batches = grace_batches

    def admit(
        self,
        waiting: Iterable[Request],
        running: Collection[Request],
        contexts: ContextTable,
        followers: Followers,
        max_running: int,
    ) -> Admitted:
        """Those it returns have taken cached pages, and have `num_reserved` set."""
        room = _Room(running, contexts, self._grace_batches)
        admitted: list[Request] = []
        order = fair_order(waiting, self._cost, self._quantum_tokens)
        for request, found in followers.split_off(order):
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
        # Followers may be set free by each batch, by what it computes or by leaving their leader
        # out; and each batch brings those nearer that kept their pages a while longer.
        return Admitted(admitted, followers.num_following > 0 or room.is_kept)

    def _cost(self, request: Request) -> int:
        return max(1, self._expectation.promise(request) - request.context.num_computed)


class _Room:
    """Of the pool, while one round of admission goes on."""

    def __init__(
        self, running: Collection[Request], contexts: ContextTable, grace_batches: int
    ) -> None:
        self.is_kept = False
        """Somebody would have fitted if contexts used lately had been suspended."""
        self._contexts = contexts
        self._first_batch = contexts.num_batches - grace_batches
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
        kept = {context, *self._busy, *self._used_lately()}
        if not self._can_make(context, length, found, kept):
            self.is_kept |= self._can_make(context, length, found, {context, *self._busy})
            return None
        suspend_idle(contexts, kept, short)
        return contexts.find_cached(context)

    def give(self, request: Request, length: int) -> None:
        request.num_reserved = self._contexts.num_pages_to_take(request.context, length)
        self._num_reserved += request.num_reserved
        self._busy.add(request.context)

    def _used_lately(self) -> Iterator[Context]:
        """Idle contexts that may be about to go on; with nothing running nobody waits for them."""
        if self._busy:
            for context in self._contexts:
                if context.request is None and context.last_batch > self._first_batch:
                    yield context

    def _can_make(
        self, context: Context, length: int, found: Found, kept: Collection[Context]
    ) -> bool:
        """Whether it would do to suspend every other context."""
        held = Counter(page for each in kept for page in each.pages)
        need = self._contexts.num_pages_to_take(context, length, found, held.__getitem__)
        return need <= self._contexts.pool.num_pages - len(held) - self._num_reserved
