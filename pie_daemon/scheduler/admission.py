"""Which waiting requests join the running ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from pie_daemon.scheduler.context import Context
from pie_daemon.scheduler.contexts import ContextTable
from pie_daemon.scheduler.fairness import fair_order
from pie_daemon.scheduler.policy import Followers
from pie_daemon.scheduler.pressure import Expectation, suspend_idle
from pie_daemon.scheduler.request import Request
from pie_daemon.scheduler.reuse import Found
from pie_daemon.scheduler.together import Span, current_span, num_pages_together


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
        room = _Room(running, contexts, self._expectation, self._grace_batches)
        admitted: list[Request] = []
        order = fair_order(waiting, self._cost, self._quantum_tokens)
        for request, found in followers.split_off(order):
            num_others = len(running) + len(admitted)
            if num_others and num_others + len(request.members) > max_running:
                break
            members = room.admit(request, found)
            if not members and not num_others:
                # It will not get more room than there is now.
                request.separate()
                members = room.admit(request, found)
            if not members:
                break
            for one in members:
                followers.lead(one.context)
            admitted += members
        # Followers may be set free by each batch, by what it computes or by leaving their leader
        # out; and each batch brings those nearer that kept their pages a while longer.
        return Admitted(admitted, followers.num_following > 0 or room.is_kept)

    def _cost(self, request: Request) -> int:
        return sum(
            max(1, self._expectation.promise(one) - one.context.num_computed)
            for one in request.members
        )


class _Room:
    """Of the pool, while one round of admission goes on."""

    def __init__(
        self,
        running: Collection[Request],
        contexts: ContextTable,
        expectation: Expectation,
        grace_batches: int,
    ) -> None:
        self.is_kept = False
        """Somebody would have fitted if contexts used lately had been suspended."""
        self._contexts = contexts
        self._expectation = expectation
        self._first_batch = contexts.num_batches - grace_batches
        self._busy = {request.context for request in running}
        self._num_reserved = sum(request.num_reserved for request in running)

    @property
    def _num_free(self) -> int:
        return self._contexts.pool.num_free - self._num_reserved

    def admit(self, request: Request, found: Found) -> Sequence[Request]:
        """It and those that come with it, with their pages; none: there is too little room."""
        members = request.members
        if len(members) > 1:
            return members if self._admit_all(members) else ()
        length = self._expectation.promise(request)
        usable = self._make(request.context, length, found, request.num_skippable)
        if usable is None:
            return ()
        self._contexts.adopt(request.context, usable)
        self._give(request, length)
        return members

    def _make(
        self, context: Context, length: int, found: Found, num_skippable: int
    ) -> Found | None:
        """What of the found pages is still there once there is room; None: there is too little."""
        contexts = self._contexts

        def short() -> int:
            return contexts.num_pages_to_take(context, length, found) - self._num_free

        if short() <= 0:
            return found
        if not self._suspend_others(
            {context}, short, partial(self._can_make, context, length, found)
        ):
            return None
        return contexts.find_cached(context, num_skippable)

    def _suspend_others(
        self,
        kept: Collection[Context],
        short: Callable[[], int],
        is_enough: Callable[[Collection[Context]], bool],
    ) -> bool:
        """Suspends idle contexts until nothing is short, if it is enough to suspend all that are
        not kept."""
        busy = {*kept, *self._busy}
        lately = {*busy, *self._used_lately()}
        if not is_enough(lately):
            self.is_kept |= is_enough(busy)
            return False
        suspend_idle(self._contexts, lately, short)
        return True

    def _admit_all(self, members: Sequence[Request]) -> bool:
        """All or none of them."""
        contexts = self._contexts
        own = {one.context for one in members}

        def short() -> int:
            return self._num_lacking_together(members) - self._num_free

        if short() > 0:
            enough = self._suspend_others(own, short, partial(self._can_make_all, members))
            if not enough or short() > 0:
                return False
        for one in members:
            contexts.adopt(one.context, contexts.find_cached(one.context, one.num_skippable))
        if short() > 0:
            return False
        self._keep_sharers(own)
        for one in members:
            # Which of them writes first is open, so that is settled now.
            contexts.unshare(one.context)
            self._give(one, self._expectation.promise(one))
        return True

    def _keep_sharers(self, own: Collection[Context]) -> None:
        """A page that the next batch copies stays as it is until then."""
        shared = {context.pages[-1] for context in own if context.pages}
        self._busy |= {
            context for context in self._contexts if not shared.isdisjoint(context.pages)
        }

    def _give(self, request: Request, length: int) -> None:
        request.num_reserved = self._contexts.num_pages_to_take(request.context, length)
        self._num_reserved += request.num_reserved
        self._busy.add(request.context)

    def _spans(self, members: Sequence[Request]) -> list[Span]:
        return [
            current_span(
                one.context, self._contexts, one.num_skippable, self._expectation.promise(one)
            )
            for one in members
        ]

    def _num_lacking_together(self, members: Sequence[Request]) -> int:
        """Pages that they would take from the pool now."""
        num_holders = self._contexts.pool.num_holders
        own = Counter(page for one in members for page in one.context.pages)
        spans = self._spans(members)
        need = num_pages_together(
            spans,
            self._contexts.page_size,
            lambda name: isinstance(name, int) and num_holders(name) > own[name],
        )
        names = {name for span in spans for name in span.names}
        return need - sum(isinstance(name, int) and num_holders(name) > 0 for name in names)

    def _can_make_all(self, members: Sequence[Request], kept: Collection[Context]) -> bool:
        """Whether it would do to suspend every other context."""
        own = {one.context for one in members}
        held = {page for each in kept if each not in own for page in each.pages}
        spans = self._spans(members)
        need = num_pages_together(spans, self._contexts.page_size, held.__contains__)
        held.difference_update(*(span.names for span in spans))
        return need <= self._contexts.pool.num_pages - len(held) - self._num_reserved

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
