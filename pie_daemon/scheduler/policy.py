"""Which requests come next. Policies are objects with one method and no memory of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeVar

from pie_daemon.scheduler.contexts import Context, ContextTable
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


class Followers:
    """Who waits for whom within one round of admission."""

    def __init__(
        self, contexts: ContextTable, leaders: dict[bytes, Context], min_tokens: int
    ) -> None:
        self.num_following = 0
        self._contexts = contexts
        self._leaders = leaders
        self._min_tokens = min_tokens

    def split_off(self, requests: Iterable[Request]) -> Iterator[tuple[Request, list[int]]]:
        """The others, with the cached pages that they would begin with."""
        for request in requests:
            if request.awaits not in self._leaders:
                found = self._contexts.find_cached(request.context)
                request.awaits = self._key_to_await(request, len(found))
                if request.awaits is None:
                    yield request, found
                    continue
            self.num_following += 1

    def lead(self, context: Context) -> None:
        """What it computes next, later ones need not."""
        key = self._contexts.key_after(context)
        if key is not None:
            self._leaders.setdefault(key, context)

    def _key_to_await(self, request: Request, num_found: int) -> bytes | None:
        context = request.context
        key = self._contexts.key_after(context, num_found)
        leader = self._leaders.get(key) if key is not None else None
        if leader is None:
            return None
        size = self._contexts.page_size
        start = (context.num_computed // size + num_found) * size
        if start + size >= len(context.journal):
            return None  # its last token is on that page, and has to be computed anyway
        end = start + self._min_tokens
        long_enough = len(leader.journal) >= end <= len(context.journal)
        same = long_enough and context.journal[start:end] == leader.journal[start:end]
        return key if same or request.awaits is not None else None


@dataclass(frozen=True, slots=True)
class FollowTheFirst:
    """Of requests that need the same tokens, one computes them and the others wait for its pages.

    A request waits for a leader: a running one that computes the very page that it needs next. So
    it waits only while that page is on its way: a leader that was in no place in the last batch, or
    has ended, leads no longer, and the first of those that waited takes over. Waiting for a few
    tokens would take longer than computing them.
    """

    min_tokens: int = 64
    """A step costs about as much as computing so many tokens more in one."""

    def round(self, moving: Iterable[Request], contexts: ContextTable) -> Followers:
        """`moving`: running requests that the last batch carried."""
        followers = Followers(contexts, {}, self.min_tokens)
        for request in moving:
            followers.lead(request.context)
        return followers


class ReserveWorstCase:
    """Admits a request only when the pool can hold all that it may come to need.

    The rule: the pages reserved by admitted requests never exceed the free pages. So no admitted
    request ever waits for a page, each one ends after a bounded number of steps, and half-filled
    contexts cannot block each other. Why cached prefixes keep it true:

    - Cached pages count as free: whoever takes a page evicts one when no other is left, and only
      pages that nobody holds are cached.
    - Beginning with cached pages needs no more of the pool than computing them would (see
      `num_pages_to_take`), so a hit never keeps a request waiting that would fit without it.
    - Each holder of a published page beyond the first saves a page, and may need one to copy it;
      the last holder writes in place. So with nothing running, whatever would fit had every context
      pages of its own is admitted.
    - A request that waits for a prefix waits for a running request that moved in the last batch.
      Running requests wait for nothing, so such waits form no circle and end when the leader does.

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
        followers: Followers,
        max_running: int,
    ) -> list[Request]:
        """Requests to admit now, with cached pages taken and `num_reserved` set."""
        reserved = sum(request.num_reserved for request in running)
        free = contexts.pool.num_free - reserved
        held = reserved + sum(len(request.context.pages) for request in running)
        admitted: list[Request] = []
        for request, found in followers.split_off(fair_order(waiting, attrgetter("admitted"))):
            if len(running) + len(admitted) >= max_running:
                break
            context = request.context
            need = contexts.num_pages_to_take(context, request.worst_length, found)
            if need <= free:
                contexts.adopt(context, found)
                request.num_reserved = contexts.num_pages_to_take(context, request.worst_length)
                free -= need
                held += request.num_reserved + len(context.pages)
                followers.lead(context)
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


@dataclass(frozen=True, slots=True)
class Room:
    """For guesses, in one batch."""

    num_rows: int
    num_tokens: int
    """That each row may guess."""


@dataclass(frozen=True, slots=True)
class EqualDrafts:
    """Guesses for the rows of a batch: as many for each, of what prompts have left.

    Rows that are many keep a device busy by themselves, and a row of several tokens costs more than
    one of a single token: a few guesses for each of many rows cost more than they save.
    """

    max_tokens: int
    """Of all rows together."""
    worth: int = 4
    """Fewer than these are guessed only by fewer rows than these."""

    def share(self, chosen: Sequence[tuple[Request, int]], max_batch_tokens: int) -> Room:
        num_rows = len(chosen)
        num_left = max_batch_tokens - sum(num_tokens for _, num_tokens in chosen)
        each = max(0, min(self.max_tokens, num_left)) // num_rows
        return Room(num_rows, each if each >= min(num_rows, self.worth) else 0)
