"""Which requests come next. Policies are objects with one method and no memory of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from operator import attrgetter
from typing import TypeVar

from pie_daemon.scheduler.contexts import ContextTable
from pie_daemon.scheduler.owners import Share
from pie_daemon.scheduler.request import Request

_T = TypeVar("_T")


def fair_order(requests: Iterable[Request], last_turn: Callable[[Share], int]) -> Iterator[Request]:
    """Users in turn, each user's families (root instances) in turn, a family first come first.

    Whoever was served longest ago comes first, so a request waits for at most one turn of every
    other user, and of every other family of its own user, per request before it in its own family.
    """
    users: dict[Share, dict[Share, deque[Request]]] = {}
    for request in requests:
        owner = request.context.owner
        users.setdefault(owner.user, {}).setdefault(owner.root, deque()).append(request)
    waiting_users = deque(deque(_by_turn(roots, last_turn)) for roots in _by_turn(users, last_turn))
    while waiting_users:
        roots = waiting_users.popleft()
        family = roots.popleft()
        yield family.popleft()
        if family:
            roots.append(family)
        if roots:
            waiting_users.append(roots)


def _by_turn(shares: dict[Share, _T], last_turn: Callable[[Share], int]) -> list[_T]:
    return [shares[share] for share in sorted(shares, key=last_turn)]


class ReserveWorstCase:
    """Admits a request only when the pool can hold all that it may come to need.

    The rule: the pages reserved by admitted requests never exceed the free pages. So no admitted
    request ever waits for a page, each one ends after a bounded number of steps, and half-filled
    contexts cannot block each other.

    A request that does not fit holds back those behind it while it can hope for the pages of
    running ones; large requests are not starved by small ones. When even all of those would not do,
    because idle contexts hold the rest (this version cannot reclaim them), it waits aside until
    programs drop them and the others pass. With nothing running, whatever fits is admitted.
    """

    def admit(
        self,
        waiting: Iterable[Request],
        running: Collection[Request],
        contexts: ContextTable,
        max_running: int,
    ) -> list[Request]:
        """Requests to admit now, with `num_reserved` set."""
        reserved = sum(request.num_reserved for request in running)
        free = contexts.pool.num_free - reserved
        held = reserved + sum(len(request.context.pages) for request in running)
        admitted: list[Request] = []
        for request in fair_order(waiting, attrgetter("admitted")):
            if len(running) + len(admitted) >= max_running:
                break
            need = contexts.num_pages_to_take(request.context, request.worst_length)
            if need <= free:
                request.num_reserved = need
                free -= need
                held += need + len(request.context.pages)
                admitted.append(request)
            elif (running or admitted) and need <= free + held:
                break
        return admitted


class DecodeFirst:
    """Every decoding row joins every batch; the tokens left over go to prompts, in fair order.

    There are never more running requests than tokens in a batch, so each batch has at least one
    token for prompts when there are any: decoding cannot starve them.
    """

    def choose(self, running: Iterable[Request], max_tokens: int) -> list[tuple[Request, int]]:
        """Rows of the next batch and how many pending tokens each computes."""
        chosen: list[tuple[Request, int]] = []
        prompts: list[Request] = []
        for request in running:
            if request.context.num_pending == 1:
                chosen.append((request, 1))
            else:
                prompts.append(request)
        num_left = max_tokens - len(chosen)
        for request in fair_order(prompts, attrgetter("prompted")):
            if num_left <= 0:
                break
            num_tokens = min(num_left, request.context.num_pending)
            chosen.append((request, num_tokens))
            num_left -= num_tokens
        return chosen
