"""Which requests come next. Policies are objects with one method and no memory of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pie_daemon.scheduler.context import Context, Run
from pie_daemon.scheduler.contexts import ContextTable
from pie_daemon.scheduler.fairness import fair_order
from pie_daemon.scheduler.request import Request
from pie_daemon.scheduler.reuse import Found
from pie_daemon.scheduler.stride import Stride

Chosen = tuple[Request, Run | Stride]
"""Whose row comes next, and what it computes."""


class Followers:
    """Who waits for whom within one round of admission."""

    def __init__(
        self, contexts: ContextTable, leaders: dict[bytes, Context], min_tokens: int
    ) -> None:
        self.num_following = 0
        self._contexts = contexts
        self._leaders = leaders
        self._min_tokens = min_tokens

    def split_off(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Found]]:
        """The others, with the cached pages that they would begin with."""
        for request in requests:
            if request.awaits not in self._leaders:
                found = self._contexts.find_cached(request.context, request.num_skippable)
                request.awaits = self._key_to_await(request, found)
                if request.awaits is None:
                    yield request, found
                    continue
            self.num_following += 1

    def lead(self, context: Context) -> None:
        """What it computes next, later ones need not."""
        key = self._contexts.key_after(context, context.num_computed)
        if key is not None:
            self._leaders.setdefault(key, context)

    def _key_to_await(self, request: Request, found: Found) -> bytes | None:
        context = request.context
        num_tokens = max(context.num_computed, found.num_tokens)
        key = self._contexts.key_after(context, num_tokens)
        leader = self._leaders.get(key) if key is not None else None
        if leader is None:
            return None
        size = self._contexts.page_size
        start = num_tokens // size * size
        if start + size > request.num_skippable:
            return None  # a token that has to be computed anyway is on that page
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


class DecodeFirst:
    """Every decoding row joins every batch; the tokens left over go to prompts, in fair order.

    There are never more running requests than tokens in a batch, but for passes of one `submit`,
    which are over after a batch or two; so each batch has at least one token for prompts when there
    are any: decoding cannot starve them. A prompt whose tokens have to be computed at once (at most
    half a batch) makes decoding rows wait for a batch when it is the first in order.
    """

    def choose(self, running: Iterable[Request], max_tokens: int) -> list[Chosen]:
        """Rows of the next batch."""
        chosen: list[Chosen] = []
        prompts: list[Request] = []
        for request in running:
            if request.stride is not None:
                if len(chosen) < max_tokens:
                    chosen.append((request, request.stride))
                continue
            if request.held_back:
                continue
            context, target = request.context, request.target
            if target - context.num_computed > 1:
                prompts.append(request)
            elif len(chosen) < max_tokens:
                chosen.append((request, context.next_run(1, target)))
        self._add_prompts(list(fair_order(prompts, _num_pending)), chosen, max_tokens)
        return chosen

    def _add_prompts(self, prompts: list[Request], chosen: list[Chosen], max_tokens: int) -> None:
        if prompts and not _num_in_row(prompts[0], max(1, max_tokens - len(chosen))):
            del chosen[max_tokens - _num_in_row(prompts[0], max_tokens) :]
        num_left = max_tokens - len(chosen)
        for request in prompts:
            if num_left <= 0:
                break
            run = request.context.next_run(num_left, request.target)
            if run.tokens:
                chosen.append((request, run))
                num_left -= len(run.tokens)


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

    def share(self, lengths: Sequence[int], max_batch_tokens: int) -> Room:
        """`lengths`: tokens of each row, guesses aside."""
        num_rows = len(lengths)
        num_left = max_batch_tokens - sum(lengths)
        each = max(0, min(self.max_tokens, num_left)) // num_rows
        return Room(num_rows, each if each >= min(num_rows, self.worth) else 0)


class Burst(NamedTuple):
    """As a batch has it."""

    passes: int
    until: list[int]
    told: bool = False


@dataclass(frozen=True, slots=True)
class Unwatched:
    """How many passes the backend makes before the scheduler is asked again.

    As many as nobody could tell from single ones: every request is a plain decode loop, and all
    pages for it are reserved. In the middle of chunks that programs wait for, nothing is heard of
    the burst until its end; else each pass is told as it comes. Whoever comes meanwhile ends the
    burst after the pass at hand.
    """

    max_passes: int

    def burst(self, rows: Sequence[Chosen], contexts: ContextTable) -> Burst:
        """Of a batch that has all running requests in it, while none waits; else of no rows."""
        most = self.max_passes
        for request, run in rows:
            most = min(most, self._most(request, run, contexts))
            if most <= 1:
                break
        if not rows or most <= 1:
            return Burst(1, [])
        until = sorted({token for one, _ in rows for token in one.ends_with})
        unwatched = min(request.num_unwatched for request, _ in rows)
        return Burst(min(most, unwatched), until) if unwatched > 1 else Burst(most, until, True)

    def _most(self, request: Request, run: Run | Stride, contexts: ContextTable) -> int:
        context = request.context
        if len(run.tokens) > 1 or run.end < len(context.journal):
            return 1
        if run.hidden or run.positions is not None or run.attention is not None:
            return 1
        room = contexts.capacity(context, request.num_reserved) - run.end
        return min(request.num_ahead, 1 + room)


def _num_pending(request: Request) -> int:
    return request.num_pending


def _num_in_row(request: Request, max_tokens: int) -> int:
    return request.context.num_in_row(max_tokens, request.target)
