"""What can be asked for at all: the model's vocabulary and context, the pool, an owner's quota."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pie_backend.batch import FORCING_BIAS, Adjustment, BackendInfo
from pie_daemon.errors import PieError
from pie_daemon.scheduler.context import Context
from pie_daemon.scheduler.contexts import ContextTable
from pie_daemon.scheduler.layout import Layout
from pie_daemon.scheduler.request import Request
from pie_daemon.scheduler.together import num_pages_together, remembered_span
from pie_daemon.scheduler.visibility import num_visible


class Limits:
    def __init__(self, info: BackendInfo, max_batch_tokens: int) -> None:
        self.info = info
        """Of the backend that computes now."""
        self._max_whole = max(1, max_batch_tokens // 2)

    def max_new(self, length: int, max_tokens: int | None, position: int = 0) -> int:
        """Tokens that a generation on a context of this length can make, whose next token stands at
        `position`."""
        room = self.info.max_context - max(length, position)
        if max_tokens is not None:
            return min(max_tokens, room)
        # The last token drawn needs no place in the pool.
        return min(room, self.info.num_pages * self.info.page_size - length + 1)

    def check_tokens(self, tokens: Iterable[int]) -> None:
        for token in tokens:
            if not 0 <= token < self.info.vocab_size:
                raise PieError(
                    "invalid-argument",
                    f"token {token} is outside the vocabulary [0, {self.info.vocab_size})",
                )

    def check_biases(self, adjustment: Adjustment | None) -> None:
        """Biases name tokens of the vocabulary and leave at least one to draw."""
        if adjustment is None or not adjustment.logit_bias:
            return
        self.check_tokens(adjustment.logit_bias)
        num_banned = sum(bias <= -FORCING_BIAS for bias in adjustment.logit_bias.values())
        if num_banned >= self.info.vocab_size:
            raise PieError("invalid-argument", "logit_bias leaves no token to draw")

    def check_length(self, length: int) -> None:
        if length > self.info.max_context:
            raise PieError(
                "invalid-argument",
                f"the context would have {length} tokens; {self.info.name} takes "
                f"{self.info.max_context}",
            )

    def check_layout(self, layout: Layout) -> None:
        """What has to be computed at once leaves room for others in a batch."""
        for block in layout.blocks:
            num_tokens = block.end - block.start
            if block.looks_ahead and num_tokens > self._max_whole:
                raise PieError(
                    "exhausted",
                    f"{num_tokens} tokens have to be computed at once, because one of them sees a "
                    f"later one; that goes for up to {self._max_whole}: raise "
                    "scheduler.max_batch_tokens",
                )

    def check_range(self, start: int, end: int, length: int) -> None:
        if not 0 <= start <= end <= length:
            raise PieError(
                "invalid-argument", f"[{start}, {end}) is not a range within [0, {length})"
            )

    def check_has_visible(self, context: Context) -> None:
        """There is something to generate from."""
        length = len(context.journal)
        if length == 0:
            raise PieError("invalid-argument", "an empty context has nothing to generate from")
        if num_visible(context.visibility.current, length) == 0:
            raise PieError(
                "invalid-argument",
                f"all {length} tokens of the context are hidden: show some, or append others",
            )

    def check_fits(self, request: Request) -> None:
        info = self.info
        need = -(-request.least_length // info.page_size)
        if need > info.num_pages:
            raise PieError(
                "exhausted",
                f"{request.least_length} tokens need {need} pages of {info.page_size}; the pool "
                f"has {info.num_pages}: ask for fewer tokens or raise backend.kv_pages",
            )

    def check_fit_together(
        self, spans: Mapping[Context, tuple[int, int]], contexts: ContextTable
    ) -> None:
        """Contexts that compute tokens [start, end) each, in an otherwise empty pool."""
        # The common case, without a look at who shares what: each with pages of its own and a copy.
        if sum(contexts.num_pages_for(end) + 1 for _, end in spans.values()) <= self.info.num_pages:
            return
        need = num_pages_together(
            (
                remembered_span(context, contexts, start, end)
                for context, (start, end) in spans.items()
            ),
            self.info.page_size,
            lambda _: False,
        )
        if need > self.info.num_pages:
            raise PieError(
                "exhausted",
                f"together the passes need {need} pages of {self.info.page_size} tokens; the pool "
                f"has {self.info.num_pages}: submit fewer at once or raise backend.kv_pages",
            )

    def check_quota(self, request: Request, contexts: ContextTable) -> None:
        """What an owner's contexts hold, or may come to hold through live requests."""
        self.check_quotas({request.context: request.worst_length}, contexts)

    def check_quotas(self, lengths: Mapping[Context, int], contexts: ContextTable) -> None:
        """The same for contexts of one owner that may come to be so long."""
        need = sum(map(contexts.num_pages_for, lengths.values()))
        for quota in next(iter(lengths)).owner.quotas:
            others = sum(
                contexts.num_pages_for(_worst_length(context))
                for owner in quota.owners
                for context in owner.contexts.values()
                if context not in lengths
            )
            if others + need > quota.max_pages:
                raise PieError(
                    "quota",
                    f"{quota.holder} may hold {quota.max_pages} pages; this takes up to {need} "
                    f"beside {others} of its other contexts",
                )


def _worst_length(context: Context) -> int:
    request = context.request
    if request is None or request.ended:
        return context.num_once_computed
    return max(context.num_once_computed, len(context.journal), request.worst_length)
