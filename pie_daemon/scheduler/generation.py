"""A decode loop over one context, as the scheduler carries it from batch to batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pie_backend.batch import Logprobs, Row, Sample
from pie_daemon.scheduler.draws import Draws
from pie_daemon.scheduler.guide import Guide
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.request import BUDGET, COMPLETE, LENGTH, Chunk, Finish, Request
from pie_daemon.scheduler.speculation import Speculation
from pie_daemon.scheduler.stride import Stride
from pie_daemon.scheduler.text import TextStream


@dataclass(slots=True, eq=False, kw_only=True)
class Generation(Request):
    """A decode loop over one context."""

    params: GenerateParams
    max_new: int
    """Tokens that it makes at most: of max_tokens, the model's context and the pool the least."""
    stops: frozenset[int]
    token_bytes: Callable[[int], bytes]
    stream: TextStream
    draws: Draws
    speculation: Speculation | None = None
    guide: Guide | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[Logprobs] = field(default_factory=list)
    """One per token, or none at all."""
    num_taken: int = 0
    _texts: list[str] = field(default_factory=list, init=False)
    """Not empty, and not taken."""
    _num_spelled: int = field(default=0, init=False)
    """Tokens whose text is there or was taken."""

    @property
    def ready(self) -> bool:
        if self.finish is not None or self.error is not None:
            return True
        return 0 < self.params.chunk_tokens <= len(self.tokens) - self.num_taken

    @property
    def drained(self) -> bool:
        return self.ended and self.num_taken == len(self.tokens) and not self._texts

    @property
    def adapter(self) -> str | None:
        return self.params.adapter

    @property
    def held_back(self) -> bool:
        return self.guide is not None and self.guide.mask is None

    @property
    def needs_logits(self) -> bool:
        return True

    @property
    def may_draft(self) -> bool:
        return self.speculation is not None

    def draft(self, num_tokens: int, num_rows: int) -> list[int]:
        if self.speculation is None:
            return []
        # One more is drawn after the drafts.
        room = self.max_new - len(self.tokens) - 1
        drafts = self.speculation.draft(self.context.journal, min(num_tokens, room), num_rows)
        if self.guide is not None:
            drafts = self.speculation.keep(self.guide.look_ahead(drafts))
        return drafts

    def samples(self, num_tokens: int) -> list[Sample]:
        masks = None if self.guide is None else [self.guide.mask, *self.guide.ahead]
        drafts = () if self.speculation is None else self.speculation.drafts
        return self.draws.samples(num_tokens - 1, drafts, masks)

    def stride_after(self, row: Row, num_left: int) -> Stride | None:
        if self.guide is not None or self.speculation is not None:
            return None
        return Stride(self.context, row, self.draws, num_left)

    @property
    def num_ahead(self) -> int:
        """Text that could end it, counts, masks and guesses are looked at token by token."""
        looks = self.guide or self.speculation or self.params.stop_strings or self.draws.counts
        if looks:
            return 1
        left = self.max_new - len(self.tokens)
        budget = self.context.owner.budget.left()
        return left if budget is None else min(left, budget)

    @property
    def num_unwatched(self) -> int:
        if not self.params.chunk_tokens:
            return self.num_ahead
        return min(self.num_ahead, self.params.chunk_tokens - self.num_hidden)

    @property
    def ends_with(self) -> frozenset[int]:
        return self.stops

    @property
    def num_drawn(self) -> int:
        return self.draws.num_drawn

    @property
    def num_drafted(self) -> int:
        return 0 if self.speculation is None else self.speculation.num_drafted

    @property
    def num_accepted(self) -> int:
        return 0 if self.speculation is None else self.speculation.num_accepted

    @property
    def num_hidden(self) -> int:
        return len(self.tokens) - self.num_taken

    @property
    def worst_length(self) -> int:
        # The last token is drawn but never computed by this generation.
        return self.prompt_tokens + self.max_new - 1

    def forget_row(self) -> None:
        if self.speculation is not None:
            self.speculation.keep(0)
        if self.guide is not None:
            self.guide.ahead = []

    def advance(self, tokens: Sequence[int], logprobs: Sequence[Logprobs | None] = ()) -> int:
        if self.speculation is not None:
            return self._advance_guessing(self.speculation, tokens, logprobs)
        if len(tokens) == 1:
            return int(self._take(tokens[0], logprobs[0]))
        # A row that only computes draws nothing; a burst draws several times.
        before = len(self.tokens)
        for token, one in zip(tokens, logprobs, strict=True):
            if not self._take(token, one) or self.ended:
                break
        return len(self.tokens) - before

    def _advance_guessing(
        self,
        speculation: Speculation,
        tokens: Sequence[int],
        logprobs: Sequence[Logprobs | None],
    ) -> int:
        before, num_accepted = len(self.tokens), 0
        for token, one, draft in zip(tokens, logprobs, [*speculation.drafts, None], strict=False):
            if not self._take(token, one) or token != draft:
                break
            num_accepted += 1
            if self.ended or (self.guide is not None and self.guide.is_done):
                break
        speculation.settle(num_accepted)
        return len(self.tokens) - before

    def _take(self, token: int, logprobs: Logprobs | None) -> bool:
        owner = self.context.owner
        if owner.is_limited and not owner.budget.spend(1):
            self.end(BUDGET)
            return False
        self.tokens.append(token)
        self.context.journal.append(token)
        self.draws.take(token)
        if logprobs is not None:
            self.logprobs.append(logprobs)
        if self.guide is not None:
            self.guide.accept(token)
        finish = self._finish_after(token)
        if finish is not None:
            self.end(finish)
        return True

    def end(self, finish: Finish) -> None:
        self.finish = finish
        self._spell(len(self.tokens) - (finish.token is not None))
        text = self.stream.finish()
        if text:
            self._texts.append(text)

    def take(self) -> Chunk | None:
        self._raise_error()
        if not self.ready or self.drained:
            return None
        if self.finish is None:
            self._spell(len(self.tokens))
        start = self.num_taken
        text = "".join(self._texts)
        chunk = Chunk(self.tokens[start:], text, self.logprobs[start:], self.ended)
        self.num_taken = len(self.tokens)
        self._texts.clear()
        return chunk

    def forget_hidden(self) -> None:
        del self.tokens[self.num_taken :]
        del self.logprobs[self.num_taken :]
        self._texts.clear()
        self._num_spelled = self.num_taken

    def _spell(self, end: int) -> None:
        """The text of the tokens before that: when it is wanted, or a stop string may be in it."""
        push, token_bytes = self.stream.push, self.token_bytes
        texts = [push(token_bytes(token)) for token in self.tokens[self._num_spelled : end]]
        self._texts += filter(None, texts)
        self._num_spelled = end

    def _spell_one(self, token: int) -> None:
        text = self.stream.push(self.token_bytes(token))
        if text:
            self._texts.append(text)
        self._num_spelled += 1

    def _finish_after(self, token: int) -> Finish | None:
        if token in self.stops:
            return Finish("stop-token", token=token)
        if self.params.stop_strings:
            self._spell_one(token)
            if self.stream.matched is not None:
                return Finish("stop-string", text=self.stream.matched)
        if self.guide is not None and self.guide.is_over:
            return COMPLETE
        if len(self.tokens) >= self.max_new:
            return LENGTH
        owner = self.context.owner
        if owner.is_limited and owner.budget.left() == 0:
            return BUDGET
        return None
