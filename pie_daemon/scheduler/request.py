"""What a program asks of a context: to generate, or to have its tokens computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pie_backend.batch import (
    Logprobs,
    Probe,
    Probed,
    Row,
    Sample,
)
from pie_daemon.errors import PieError
from pie_daemon.scheduler.context import Context
from pie_daemon.scheduler.stride import Stride


@dataclass(frozen=True, slots=True)
class Chunk:
    tokens: list[int]
    text: str
    """May lag `tokens` by half a character or a possible stop string; the last chunk catches up."""
    logprobs: list[Logprobs] = field(default_factory=list)
    """One per token; empty unless asked for."""
    last: bool = field(default=False, compare=False)
    """Nothing comes after it."""


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
    stride: Stride | None = None
    """Its next row, where that is the one in flight or the last one a token further."""

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

    def stride_after(self, row: Row, num_left: int) -> Stride | None:
        """What follows a row of one token of a plain context, in a page with room for `num_left`
        more, if that is the same for all of them."""
        return None

    @property
    def num_ahead(self) -> int:
        """So many tokens can be drawn before the scheduler has to look at one of them."""
        return 1

    @property
    def num_unwatched(self) -> int:
        """So many of these can be drawn before anybody waits for one of them."""
        return 1

    @property
    def ends_with(self) -> frozenset[int]:
        """Tokens after which it draws no more."""
        return frozenset()

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

    @property
    def least_length(self) -> int:
        """Without room for so long a context it cannot be served at all."""
        return self.worst_length

    def forget_row(self) -> None:
        """The row that was in flight is lost, and nothing of it counts."""

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
