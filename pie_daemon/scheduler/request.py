"""What a program asks of a context: to generate, or to have its tokens computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pie_backend.batch import (
    FORCING_BIAS,
    Adjustment,
    Logprobs,
    Probe,
    Probed,
    Sample,
    Sampling,
)
from pie_daemon.errors import PieError
from pie_daemon.grammar.matcher import Matcher
from pie_daemon.scheduler.context import Context
from pie_daemon.scheduler.drafts import MAX_DRAFT, MAX_MATCH, DraftParams
from pie_daemon.scheduler.draws import Draws
from pie_daemon.scheduler.guide import Guide
from pie_daemon.scheduler.speculation import Speculation
from pie_daemon.scheduler.text import TextStream

GREEDY = Sampling()
MAX_STOP_STRINGS = 64
MAX_STOP_CHARS = 2048
"""Of all stop strings together; what they cost is paid under the scheduler's lock."""
MAX_LOGIT_BIASES = 1024
MAX_LOGPROBS = 20
MIN_REPETITION_PENALTY, MAX_REPETITION_PENALTY = 0.01, 100.0
MAX_PENALTY = 2.0
"""Of presence and frequency, in both directions."""


@dataclass(frozen=True, slots=True)
class GenerateParams:
    """The options of one generation."""

    sampling: Sampling = GREEDY
    fresh_seed: bool = False
    """The program gave no seed: the service draws one in place of `sampling.seed`."""
    max_tokens: int | None = None
    """None: as many as the model's context and the page pool can hold."""
    stop_tokens: tuple[int, ...] = ()
    """Beside the model's end-of-sequence tokens."""
    stop_strings: tuple[str, ...] = ()
    ignore_eos: bool = False
    adapter: str | None = None
    """Digest of the adapter that computes what is not computed yet; it has to be open."""
    chunk_tokens: int = 1
    """A chunk is ready with so many tokens; 0 hands everything over at the end."""
    drafts: DraftParams | None = None
    """None: no speculation."""
    matcher: Matcher | None = None
    """The constraint's, this generation's own from here on; its first mask is made."""

    def check(self) -> None:
        """Raises: PieError: `invalid-argument`, naming the first option out of range."""
        sampling, stops = self.sampling, self.stop_strings
        _require(self.max_tokens is None or self.max_tokens >= 1, "max_tokens must be at least 1")
        _require(self.chunk_tokens >= 0, "chunk_tokens must not be negative")
        _require(
            math.isfinite(sampling.temperature) and sampling.temperature >= 0,
            "temperature must be a number from 0",
        )
        _require(sampling.top_k >= 0, "top_k must not be negative")
        _require(0 < sampling.top_p <= 1, "top_p must be above 0 and at most 1")
        _require(0 <= sampling.min_p <= 1, "min_p must be from 0 to 1")
        _require(0 <= sampling.seed < 1 << 64, "seed must be an unsigned 64-bit number")
        _require(len(stops) <= MAX_STOP_STRINGS, f"more than {MAX_STOP_STRINGS} stop_strings")
        _require(
            all(stops) and sum(map(len, stops)) <= MAX_STOP_CHARS,
            f"stop_strings must not be empty and have {MAX_STOP_CHARS} characters in all at most",
        )
        _require(
            sampling.logprobs is None or 0 <= sampling.logprobs <= MAX_LOGPROBS,
            f"logprobs must be from 0 to {MAX_LOGPROBS}",
        )
        if sampling.adjustment is not None:
            _check_adjustment(sampling.adjustment)
        if self.drafts is not None:
            _check_drafts(self.drafts)


def _check_adjustment(adjustment: Adjustment) -> None:
    low, high = MIN_REPETITION_PENALTY, MAX_REPETITION_PENALTY
    _require(
        low <= adjustment.repetition_penalty <= high,
        f"repetition_penalty must be from {low} to {high}",
    )
    for name in ("presence_penalty", "frequency_penalty"):
        _require(
            abs(getattr(adjustment, name)) <= MAX_PENALTY,
            f"{name} must be from {-MAX_PENALTY} to {MAX_PENALTY}",
        )
    biases = adjustment.logit_bias
    _require(len(biases) <= MAX_LOGIT_BIASES, f"more than {MAX_LOGIT_BIASES} entries in logit_bias")
    _require(
        all(abs(bias) <= FORCING_BIAS for bias in biases.values()),
        f"logit_bias must be from {-FORCING_BIAS} to {FORCING_BIAS}",
    )


def _check_drafts(drafts: DraftParams) -> None:
    _require(0 <= drafts.max_draft <= MAX_DRAFT, f"max_draft must be from 0 to {MAX_DRAFT}")
    _require(1 <= drafts.min_match <= MAX_MATCH, f"min_match must be from 1 to {MAX_MATCH}")
    _require(
        drafts.min_match <= drafts.max_match <= MAX_MATCH,
        f"max_match must be from min_match, {drafts.min_match}, to {MAX_MATCH}",
    )


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise PieError("invalid-argument", message)


@dataclass(frozen=True, slots=True)
class Chunk:
    tokens: list[int]
    text: str
    """May lag `tokens` by half a character or a possible stop string; the last chunk catches up."""
    logprobs: list[Logprobs] = field(default_factory=list)
    """One per token; empty unless asked for."""


FinishKind = Literal[
    "stop-token", "stop-string", "length", "constraint-complete", "budget", "cancelled", "flushed"
]


@dataclass(frozen=True, slots=True)
class Finish:
    kind: FinishKind
    token: int | None = None
    """Of `stop-token`: the last of the tokens; it is not in the text."""
    text: str | None = None
    """Of `stop-string`: which one; the text ends before it, the tokens end with its last piece."""


CANCELLED = Finish("cancelled")
LENGTH = Finish("length")
BUDGET = Finish("budget")
FLUSHED = Finish("flushed")
COMPLETE = Finish("constraint-complete")


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int
    """Tokens of the context when the request came."""
    cached_tokens: int
    """Those of them whose KV was there already, of this context or of any other."""
    generated_tokens: int
    """Tokens drawn, those included that a cancellation took back."""
    drafted_tokens: int
    """Guessed by speculation and verified."""
    accepted_tokens: int
    """Those of them that became generated tokens."""
    queued_s: float
    """From the request to its first place in a batch; so far, while it waits."""


@dataclass(slots=True, eq=False, kw_only=True)
class Request:
    """One request from its submission until it is dropped; the base of its kinds."""

    id: int
    context: Context
    submitted_at_s: float
    prompt_tokens: int
    """Length of the context when the request came."""
    cached_tokens: int
    admitted_at_s: float | None = None
    awaits: bytes | None = None
    """Key of the page that it waits for another request to compute; set by the admission."""
    num_reserved: int = 0
    """Pages that it may still take and that nobody else is given."""
    overdrawn: bool = False
    """It needed more pages than it was promised, and may be suspended."""
    finish: Finish | None = None
    error: PieError | None = None

    @property
    def ended(self) -> bool:
        """No batch will carry it again."""
        return self.finish is not None or self.error is not None

    @property
    def ready(self) -> bool:
        """`take` has something to say: a chunk, the end, or an error."""
        return self.ended

    @property
    def drained(self) -> bool:
        """Ended, and everything that it made is handed out: the context is free again."""
        return self.ended

    @property
    def adapter(self) -> str | None:
        """What computes the tokens that it finds pending, and those that it draws."""
        return None

    @property
    def held_back(self) -> bool:
        """No batch can carry it until something outside of the state machine is done."""
        return False

    @property
    def needs_logits(self) -> bool:
        """It draws after the context's last token, which a batch has to compute (again) for it."""
        return False

    @property
    def target(self) -> int:
        """It computes the journal's tokens before this one."""
        return len(self.context.journal)

    @property
    def num_pending(self) -> int:
        """Tokens that are left to compute for it."""
        return self.target - self.context.num_computed

    @property
    def num_skippable(self) -> int:
        """So many tokens at the beginning need not be computed if their KV is found."""
        return len(self.context.journal) - 1

    @property
    def members(self) -> Sequence[Request]:
        """Those that are admitted together with it, itself included."""
        return (self,)

    def separate(self) -> None:
        """From now on its members are admitted one after another."""

    def questions(self, start: int, end: int) -> tuple[list[Sample], list[Probe]]:
        """What to ask of a row that computes tokens [start, end) of the journal."""
        is_last = end == len(self.context.journal)
        return (self.samples(end - start) if is_last else []), []

    def observe(self, probed: Sequence[Probed]) -> None:
        """Takes in what the probes of its row saw; `advance` comes next."""

    @property
    def may_draft(self) -> bool:
        """`draft` may guess something, now or later."""
        return False

    def draft(self, num_tokens: int, num_rows: int) -> list[int]:
        """At most so many guesses of what follows the journal, for the row that `samples` is asked
        about next, in a batch of `num_rows`."""
        return []

    def samples(self, num_tokens: int) -> list[Sample]:
        """What to draw in a row of so many tokens, drafts not counted, that reaches the journal's
        end."""
        return []

    @property
    def num_drafted(self) -> int:
        """Drafts that were verified."""
        return 0

    @property
    def num_accepted(self) -> int:
        """Drafts that became tokens."""
        return 0

    @property
    def num_drawn(self) -> int:
        """Tokens drawn, those included that a cancellation took back."""
        return 0

    @property
    def num_hidden(self) -> int:
        """Tokens at the end of the journal that the program has not been given."""
        return 0

    @property
    def worst_length(self) -> int:
        """The longest that the computed part of the context can get through this request."""
        return self.prompt_tokens

    @property
    def is_exact(self) -> bool:
        """It computes all of its worst length: it is promised that, and never suspended."""
        return False

    @property
    def next_length(self) -> int:
        """How long the next row can make it: pages for that are reserved before the row is cut.
        At most `worst_length`."""
        return len(self.context.journal)

    def advance(self, tokens: Sequence[int], logprobs: Sequence[Logprobs | None] = ()) -> int:
        """Takes in what a batch made of its row: one token for each sample asked for. How many of
        them it kept."""
        raise NotImplementedError

    def take(self) -> Chunk | None:
        self._raise_error()
        return None

    def forget_hidden(self) -> None:
        """Gives up what was not handed out."""

    def _raise_error(self) -> None:
        # A new one each time: many threads raise what many requests failed from.
        if self.error is not None:
            raise PieError(self.error.code, self.error.message)

    def usage(self, now_s: float) -> Usage:
        admitted_at_s = now_s if self.admitted_at_s is None else self.admitted_at_s
        queued_s = admitted_at_s - self.submitted_at_s
        return Usage(
            self.prompt_tokens,
            self.cached_tokens,
            self.num_drawn,
            self.num_drafted,
            self.num_accepted,
            queued_s,
        )


@dataclass(slots=True, eq=False, kw_only=True)
class Flush(Request):
    """Computes what was appended, and draws nothing."""

    def advance(self, tokens: Sequence[int], logprobs: Sequence[Logprobs | None] = ()) -> int:
        if self.context.num_pending == 0:
            self.finish = FLUSHED
        return 0


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

    def advance(self, tokens: Sequence[int], logprobs: Sequence[Logprobs | None] = ()) -> int:
        if self.speculation is not None:
            return self._advance_guessing(self.speculation, tokens, logprobs)
        # A row that only computes draws nothing, and without drafts none draws twice.
        return int(self._take(tokens[0], logprobs[0])) if tokens else 0

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
        if not self.context.owner.budget.spend(1):
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
        self._add_text(self.stream.finish())

    def take(self) -> Chunk | None:
        self._raise_error()
        if not self.ready or self.drained:
            return None
        start = self.num_taken
        chunk = Chunk(self.tokens[start:], "".join(self._texts), self.logprobs[start:])
        self.num_taken = len(self.tokens)
        self._texts.clear()
        return chunk

    def forget_hidden(self) -> None:
        del self.tokens[self.num_taken :]
        del self.logprobs[self.num_taken :]
        self._texts.clear()

    def _finish_after(self, token: int) -> Finish | None:
        if token in self.stops:
            return Finish("stop-token", token=token)
        self._add_text(self.stream.push(self.token_bytes(token)))
        if self.stream.matched is not None:
            return Finish("stop-string", text=self.stream.matched)
        if self.guide is not None and self.guide.is_over:
            return COMPLETE
        if len(self.tokens) >= self.max_new:
            return LENGTH
        if self.context.owner.budget.left() == 0:
            return BUDGET
        return None

    def _add_text(self, text: str) -> None:
        if text:
            self._texts.append(text)
