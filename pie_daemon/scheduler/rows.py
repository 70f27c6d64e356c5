"""From what a policy has chosen to the rows of a batch, and from its answers back to requests."""

from __future__ import annotations

from collections.abc import Sequence

from pie_backend.batch import Logprobs, Row
from pie_daemon.scheduler.context import Run
from pie_daemon.scheduler.contexts import ContextTable
from pie_daemon.scheduler.delivery import Counters
from pie_daemon.scheduler.fairness import Fairness
from pie_daemon.scheduler.policy import Room
from pie_daemon.scheduler.request import Request


class Rows:
    """Runs for every row of every batch: what a plain decoding row does not need is not asked."""

    def __init__(self, contexts: ContextTable, counters: Counters, fairness: Fairness) -> None:
        self._contexts = contexts
        self._counters = counters
        self._fairness = fairness

    def cut(
        self,
        request: Request,
        run: Run,
        room: Room,
        copies: list[tuple[int, int]],
        num_more: int = 0,
    ) -> Row:
        """Its pages are written by the next batch; `copies`: what has to be copied before;
        `num_more`: passes of a burst after the first, whose tokens are as drafts that come true."""
        context, start, tokens = request.context, run.start, run.tokens
        end, num_drafts = start + len(tokens), num_more
        if run.attention is None and request.may_draft and end == len(context.journal):
            drafts = self._draft(request, end, room)
            tokens, num_drafts = [*tokens, *drafts], len(drafts)
        request.num_reserved -= self._contexts.extend(context, end + num_drafts, copies)
        context.num_computed, context.num_drafted = end, num_drafts
        if context.num_once_computed < end:
            self._counters.recomputed_tokens += max(0, context.num_once_computed - start)
            context.num_once_computed = end
        else:
            self._counters.recomputed_tokens += end - start
        self._fairness.serve(context.owner, len(tokens))
        samples, probes = request.questions(start, end)
        return Row(
            tokens=tokens,
            start=start,
            pages=context.pages.copy(),
            samples=samples,
            probes=probes,
            positions=None if run.positions is None else run.positions_with(num_drafts),
            hidden=run.hidden,
            attention=run.attention,
            adapter=run.adapter,
        )

    def _draft(self, request: Request, end: int, room: Room) -> list[int]:
        """Guesses take no pages but those that are reserved for the request anyway."""
        capacity = self._contexts.capacity(request.context, request.num_reserved)
        return request.draft(min(room.num_tokens, capacity - end), room.num_rows)

    def take_in(
        self, request: Request, tokens: Sequence[int], logprobs: Sequence[Logprobs | None]
    ) -> int:
        """What a batch made of its row; how many tokens the request kept."""
        if request.context.num_drafted:
            num_new = self._take_in_drafted(request, tokens, logprobs)
            if not request.may_draft:  # guesses were counted when they were cut
                self._fairness.serve(request.context.owner, len(tokens) - 1)
        else:
            num_new = request.advance(tokens, logprobs)
        self._contexts.publish(request.context)
        return num_new

    def _take_in_drafted(
        self, request: Request, tokens: Sequence[int], logprobs: Sequence[Logprobs | None]
    ) -> int:
        """What was computed after the last token that it kept is forgotten."""
        drafted, accepted = request.num_drafted, request.num_accepted
        num_new = request.advance(tokens, logprobs)
        self._counters.drafted_tokens += request.num_drafted - drafted
        self._counters.accepted_tokens += request.num_accepted - accepted
        # As without drafts, the last token drawn is not computed yet.
        request.num_reserved += self._contexts.settle_drafts(request.context, max(0, num_new - 1))
        return num_new
