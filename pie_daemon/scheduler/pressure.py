"""What happens when the pool is too small for what programs want: whose pages go, and who waits.

Cached pages go first. Then contexts that no running request uses are suspended, the least recently
used first. Then running requests give way. None of them loses anything but time: see `contexts`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from pie_daemon.scheduler.context import Context
from pie_daemon.scheduler.contexts import ContextTable
from pie_daemon.scheduler.fairness import over_share
from pie_daemon.scheduler.request import Request


class Expectation:
    """How long a request may be expected to make its context: what it is promised pages for.

    Programs seldom make all the tokens that they may, and promising them the worst case would leave
    most of the pool empty. So a request is promised pages for twice the tokens that recent ones
    made, and never for more than its worst case. Who was suspended because that was not enough is
    promised twice what it has made by then: each time it had to give way it had doubled, so that
    happens at most log2(max_tokens / min_run) + 1 times, and what is computed again is bounded too.
    """

    def __init__(self, mean_tokens: float = 128.0, min_run_tokens: int = 64) -> None:
        """`mean_tokens` is assumed before the first request has ended."""
        self._mean_tokens = mean_tokens
        self._min_run_tokens = min_run_tokens

    def promise(self, request: Request) -> int:
        """Computed length of the context up to which the request will not be suspended."""
        if request.is_exact:
            return request.worst_length
        length = len(request.context.journal)
        num_made = length - request.prompt_tokens
        expected = request.prompt_tokens + int(2 * self._mean_tokens)
        wanted = max(expected, length + max(num_made, self._min_run_tokens))
        return max(request.next_length, min(wanted, request.worst_length))

    def learn(self, num_tokens: int) -> None:
        """A request has ended after so many tokens."""
        self._mean_tokens += (num_tokens - self._mean_tokens) / 8


def suspend_idle(
    contexts: ContextTable, busy: Collection[Context], short: Callable[[], int]
) -> None:
    """Suspends contexts that are not busy until nothing is short or none is left.

    The least recently used ones first, those with a waiting request last; and first of all those
    that free a page at once: of several holders of a page, only the last one does.
    """
    idle = sorted(
        (context for context in contexts if context.pages and context not in busy), key=_idle_order
    )
    for at_once in (True, False):
        for context in idle:
            if short() <= 0:
                return
            if context.pages and (contexts.holds_alone(context) or not at_once):
                contexts.suspend(context)


def _idle_order(context: Context) -> tuple[bool, int]:
    waits = context.request is not None and not context.request.ended
    return waits, context.last_used


class Preemption:
    """Keeps the promises to running requests, and finds pages for those that go beyond theirs.

    Who needs more than it was promised gets it from what is free and promised to nobody, else from
    idle contexts, else from requests that have gone beyond their own promise, whoever is most over
    its share first; that may be itself. Who keeps within its promise is never suspended.

    So something always ends: requests within their promise lack nothing, and one that is left alone
    gets the whole pool, which holds it (`Limits.check_fits`).
    """

    def secure(self, running: Collection[Request], contexts: ContextTable) -> list[Request]:
        """Reserves what each next row takes; returns the requests that were suspended for it."""
        lacking = [one for one in running if one.stride is None and _num_lacking(one, contexts) > 0]
        if not lacking:
            return []
        remaining = sorted(running, key=over_share)
        suspended: list[Request] = []
        for request in sorted(lacking, key=over_share):
            if request not in suspended:
                request.overdrawn = True
                suspended += self._provide(request, remaining, contexts)
        return suspended

    def _provide(
        self, request: Request, running: list[Request], contexts: ContextTable
    ) -> list[Request]:
        """Takes the requests that it suspends out of `running`."""
        suspended: list[Request] = []
        while request in running and not self._top_up(request, running, contexts):
            victim = next(one for one in reversed(running) if one.overdrawn)
            running.remove(victim)
            contexts.suspend(victim.context)
            victim.num_reserved = 0
            victim.overdrawn = False
            suspended.append(victim)
        return suspended

    def _top_up(self, request: Request, running: list[Request], contexts: ContextTable) -> bool:
        reserved = sum(one.num_reserved for one in running)

        def short() -> int:
            return _num_lacking(request, contexts) - (contexts.pool.num_free - reserved)

        if short() > 0:
            suspend_idle(contexts, {one.context for one in running}, short)
        if short() > 0:
            return False
        request.num_reserved += max(0, _num_lacking(request, contexts))
        return True


def _num_lacking(request: Request, contexts: ContextTable) -> int:
    """Pages beyond those reserved that its next row takes; at most that when there are enough."""
    context, length = request.context, request.next_length
    # Once for every running request before every batch, and then this is nearly always enough.
    at_most = -(-length // contexts.page_size) - len(context.pages) + 1 - request.num_reserved
    if at_most <= 0:
        return at_most
    return contexts.num_pages_to_take(context, length) - request.num_reserved
