"""From what a policy has chosen to the rows of a batch, and from its answers back to requests."""

from __future__ import annotations

from collections.abc import Sequence

from pie_backend.batch import Logprobs, Row
from pie_daemon.scheduler.context import Run
from pie_daemon.scheduler.contexts import ContextTable
from pie_daemon.scheduler.delivery import Counters
from pie_daemon.scheduler.fairness import Fairness
from pie_daemon.scheduler.policy import Chosen, Room
from pie_daemon.scheduler.request import Request
from pie_daemon.scheduler.stride import Stride


class Rows:
    """Runs for every row of every batch: what a plain decoding row does not need is not asked."""

    def __init__(self, contexts: ContextTable, counters: Counters, fairness: Fairness) -> None:
        self._contexts = contexts
        self._counters = counters
        self._fairness = fairness

    def cut(
        self,
        chosen: Sequence[Chosen],
        room: Room,
        copies: list[tuple[int, int]],
        num_more: int,
    ) -> list[Row]:
        """Their pages are written by the next batch; `copies`: what has to be copied before;
        `num_more`: passes of a burst after the first, whose tokens are as drafts that come true."""
        rows = [
            self._go_on(request, run)
            if isinstance(run, Stride) and not num_more
            else self._cut(request, run, room, copies, num_more)
            for request, run in chosen
        ]
        self._fairness.serve_each(
            (request.context.owner, len(row.tokens))
            for (request, _), row in zip(chosen, rows, strict=True)
        )
        return rows

    def _go_on(self, request: Request, stride: Stride) -> Row:
        row = stride.row()
        if not stride.num_left:
            request.stride = None
        return row

    def _cut(
        self,
        request: Request,
        run: Run | Stride,
        room: Room,
        copies: list[tuple[int, int]],
        num_more: int,
    ) -> Row:
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
        samples, probes = request.questions(start, end)
        row = Row(
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
        request.stride = self._stride_after(request, row) if not num_drafts else None
        return row

    def _stride_after(self, request: Request, row: Row) -> Stride | None:
        context, page_size = request.context, self._contexts.page_size
        num_left = -context.num_computed % page_size
        if not num_left or len(row.tokens) > 1 or context.num_pending or not context.is_uniform:
            return None
        if context.num_published != row.start // page_size:
            return None  # a page that is published late may turn out to be another one's twin
        return request.stride_after(row, num_left)

    def _draft(self, request: Request, end: int, room: Room) -> list[int]:
        """Guesses take no pages but those that are reserved for the request anyway."""
        capacity = self._contexts.capacity(request.context, request.num_reserved)
        return request.draft(min(room.num_tokens, capacity - end), room.num_rows)

    def take_in(
        self, request: Request, tokens: list[int], logprobs: Sequence[Logprobs | None]
    ) -> int:
        """What a batch made of its row; how many tokens the request kept."""
        if request.stride is not None:
            return request.advance(tokens, logprobs)
        if request.context.num_drafted:
            num_new = self._take_in_drafted(request, tokens, logprobs)
            if not request.may_draft:  # guesses were counted when they were cut
                self._fairness.serve(request.context.owner, len(tokens) - 1)
        else:
            num_new = request.advance(tokens, logprobs)
        self._contexts.publish(request.context)
        return num_new

    def take_in_told(
        self, request: Request, tokens: list[int], logprobs: Sequence[Logprobs | None]
    ) -> int:
        """The same of a burst that goes on: what it has drawn is being computed already."""
        context = request.context
        num_new = request.advance(tokens, logprobs)
        self._fairness.serve(context.owner, len(tokens))
        if request.ended:
            self._contexts.settle_drafts(context, max(0, num_new - 1))
            self._contexts.publish(context)
        else:
            self._contexts.keep_drafts(context, num_new)
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
