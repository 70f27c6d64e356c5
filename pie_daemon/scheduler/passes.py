"""Forward passes that programs put together themselves: what to ask after which token.

The input of a pass joins the journal at once. From then on it is like anything appended: dropping
the pass only gives up its answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from pie_backend.batch import Logprobs, Probe, Probed, Sample, SeenTokens
from pie_daemon.errors import PieError
from pie_daemon.scheduler.context import Context
from pie_daemon.scheduler.draws import packed
from pie_daemon.scheduler.request import FLUSHED, Chunk, Request

Question = Sample | Probe
Answer = int | Probed
"""A token for a sample."""


@dataclass(frozen=True, slots=True)
class MaskRow:
    """What one token sees; see `Row.attention`."""

    bits: bytes
    num_tokens: int
    """Of the context, that it speaks of."""


@dataclass(frozen=True, slots=True)
class PassSpec:
    """One pass as a program asks for it."""

    context: int
    tokens: Sequence[int] = ()
    """Without any, the questions are about the last token again."""
    positions: Sequence[int] | None = None
    """One per token; None: they go on from the last one."""
    attention: Sequence[MaskRow] | None = None
    """One per token; None: causal."""
    questions: Sequence[Question] = ()
    """Their `index` counts `tokens`; one answer each, in this order."""
    adapter: str | None = None
    """Digest of what computes its tokens, and those that are still open; it has to be loaded."""


@dataclass(eq=False)
class PassGroup:
    """Passes of one `submit`; those that are first on their contexts are admitted together."""

    passes: list[Pass] = field(default_factory=list)
    """That have not ended."""
    admitted: bool = False
    apart: bool = False
    """They are admitted one after another: contexts that shared pages do so no more, and have not
    enough room beside each other."""

    def end_of(self, context: Context) -> int:
        """How long its passes make a context."""
        return max((one.stop for one in self.passes if one.context is context), default=0)

    @property
    def heads(self) -> list[Pass]:
        return [one for one in self.passes if one.context.request is one]

    @property
    def is_first(self) -> bool:
        """None of them is behind a pass of another submit."""
        return all(
            isinstance(one.context.request, Pass) and one.context.request.group is self
            for one in self.passes
        )


@dataclass(slots=True, eq=False, kw_only=True)
class Pass(Request):
    """One forward pass over a context, or over what is left to compute of it."""

    stop: int
    """It computes the journal's tokens before this one."""
    questions_by_slot: list[Question]
    """Their `index` counts the journal."""
    group: PassGroup
    answers: list[Answer | None]
    """None: not known yet."""
    num_answer_bytes: int
    """Of all of them; 0 once they are taken."""
    is_taken: bool = False
    num_samples: int = 0
    """Answered so far."""
    _asked: list[int] = field(default_factory=list, init=False)

    @property
    def target(self) -> int:
        return self.stop

    @property
    def first_asked(self) -> int:
        """The first token that has to be computed for an answer."""
        asked = [
            question.index
            for question, answer in zip(self.questions_by_slot, self.answers, strict=True)
            if answer is None
        ]
        return min(asked, default=self.stop)

    @property
    def num_skippable(self) -> int:
        # At least one token is left: only rows bring a request to its end.
        return min(self.first_asked, self.stop - 1)

    @property
    def members(self) -> Sequence[Request]:
        return (self,) if self.group.admitted or self.group.apart else self.group.heads

    def separate(self) -> None:
        self.group.apart = True

    @property
    def num_drawn(self) -> int:
        return self.num_samples

    @property
    def is_exact(self) -> bool:
        return True

    @property
    def worst_length(self) -> int:
        """With the passes behind it that are admitted with it."""
        return self.stop if self.group.apart else self.group.end_of(self.context)

    @property
    def next_length(self) -> int:
        return self.stop

    @property
    def least_length(self) -> int:
        return self.stop

    def questions(self, start: int, end: int) -> tuple[list[Sample], list[Probe]]:
        samples: list[Sample] = []
        probes: list[Probe] = []
        self._asked = [
            slot
            for slot, question in enumerate(self.questions_by_slot)
            if start <= question.index < end and self.answers[slot] is None
        ]
        for slot in self._asked:
            question = self.questions_by_slot[slot]
            if isinstance(question, Sample):
                samples.append(self._sample(question, start))
            else:
                probes.append(msgspec.structs.replace(question, index=question.index - start))
        return samples, probes

    def observe(self, probed: Sequence[Probed]) -> None:
        self._fill(Probe, probed)

    def advance(self, tokens: Sequence[int], logprobs: Sequence[Logprobs | None] = ()) -> int:
        if tokens and not self.context.owner.budget.spend(len(tokens)):
            self.error = PieError("quota", "the launch's token budget is spent")
            return 0
        self._fill(Sample, tokens)
        self.num_samples += len(tokens)
        if self.num_pending <= 0 and None not in self.answers:
            self.finish = FLUSHED
        return len(tokens)

    def take(self) -> Chunk | None:
        """`take_answers` is what gives something."""
        self._raise_error()
        return None

    def take_answers(self) -> list[Answer]:
        self._raise_error()
        if self.is_taken:
            raise PieError("closed", "the answers of this pass were taken already")
        answers = [answer for answer in self.answers if answer is not None]
        if len(answers) < len(self.answers):
            raise PieError("cancelled", "the pass was cancelled")
        self.is_taken, self.num_answer_bytes = True, 0
        self.answers, self.questions_by_slot = [], []
        return answers

    def _fill(self, kind: type[Question], found: Sequence[Answer]) -> None:
        slots = [slot for slot in self._asked if isinstance(self.questions_by_slot[slot], kind)]
        for slot, answer in zip(slots, found, strict=True):
            self.answers[slot] = answer

    def _sample(self, sample: Sample, start: int) -> Sample:
        adjustment = sample.sampling.adjustment
        seen = None
        if adjustment is not None and adjustment.looks_back:
            num_prompt = sample.index + 1 - sample.draw
            prompt = self.context.journal[:num_prompt] if adjustment.counts_prompt else ()
            drawn = self.context.journal[num_prompt : sample.index + 1]
            seen = SeenTokens(packed(prompt), packed(drawn))
        return msgspec.structs.replace(sample, index=sample.index - start, seen=seen)


class PassLines:
    """Which passes come after which: those on one context in the order of their submits."""

    def __init__(self, waiting: dict[int, Request]) -> None:
        self.parked: dict[int, Pass] = {}
        """Live passes that neither wait for admission by themselves nor run."""
        self._waiting = waiting
        self._lines: dict[int, list[Pass]] = {}

    def add(self, group: PassGroup) -> list[Pass]:
        """Those that are now first on their contexts."""
        heads = []
        for one in group.passes:
            self.parked[one.id] = one
            if one.context.request is None:
                one.context.request = one
                heads.append(one)
            else:
                self._lines.setdefault(one.context.id, []).append(one)
        self._muster(group)
        return heads

    def is_last(self, context_id: int) -> bool:
        return context_id not in self._lines

    def start(self, request: Request) -> None:
        """It is admitted."""
        if isinstance(request, Pass):
            self.parked.pop(request.id, None)
            if request.group.apart:
                self._muster(request.group)
            else:
                request.group.admitted = True

    def leave(self, request: Request) -> Pass | None:
        """It has ended; the next one on its context, which is now first."""
        if not isinstance(request, Pass):
            return None
        context, line = request.context, self._lines.get(request.context.id, [])
        self.parked.pop(request.id, None)
        request.group.passes.remove(request)
        if request in line:
            line.remove(request)
        following = None
        if context.request is None and line:
            context.request = following = line.pop(0)
        if not line:
            self._lines.pop(context.id, None)
        self._muster(request.group)
        if following is not None:
            self._muster(following.group)
        return following

    def wait(self, one: Pass) -> None:
        """For admission by itself."""
        del self.parked[one.id]
        self._waiting[one.id] = one

    def _muster(self, group: PassGroup) -> None:
        """Lets one of them wait for admission, in the name of all unless they are apart."""
        if group.admitted:
            return
        for one in group.passes:
            if self._waiting.pop(one.id, None) is not None:
                self.parked[one.id] = one
        heads = [one for one in group.heads if one.id in self.parked]
        if heads and group.is_first:
            self.wait(heads[0])
