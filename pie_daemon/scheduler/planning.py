"""Checks the passes of one `submit` before anything of them is queued."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from pie_backend.batch import BackendInfo, Probe, Sample
from pie_daemon.errors import PieError
from pie_daemon.scheduler.context import Context
from pie_daemon.scheduler.contexts import ContextTable
from pie_daemon.scheduler.layout import Block, Layout, clipped
from pie_daemon.scheduler.limits import Limits
from pie_daemon.scheduler.owners import Owner
from pie_daemon.scheduler.passes import MaskRow, Pass, PassSpec, Question

MAX_PASSES = 256
"""Of one submit."""
MAX_SLOTS = 1024
"""Samples and probes of one pass."""
MAX_COUNTED_SAMPLES = 32
"""Samples of one pass with penalties: each one counts the tokens of its context."""
MAX_ANSWER_BYTES = 4_000_000
"""Of one pass: what one host call hands over."""
MAX_QUESTION_BYTES = 8 << 20
"""Masks over the vocabulary, in one pass."""
MAX_HELD_PASSES = 1024
"""Of one instance: that it has not dropped."""
MAX_HELD_BYTES = 64 << 20
"""Of one instance: answers that are asked for and not taken."""


@dataclass(slots=True)
class Plan:
    """One pass, checked."""

    context: Context
    tokens: Sequence[int]
    layout: Layout
    """Of the context with its tokens."""
    stop: int
    """Length of the context with its tokens."""
    questions: list[Question]
    """Their `index` counts the journal."""

    num_answer_bytes: int
    adapter: str | None
    first_adapted: int
    """From this token on it is the adapter that computes."""


class Planner:
    """Raises PieError, naming the pass and what is wrong with it; changes nothing."""

    def __init__(self, info: BackendInfo, limits: Limits) -> None:
        self._info = info
        self._limits = limits

    def plan(self, specs: Sequence[PassSpec], contexts: ContextTable) -> list[Plan]:
        if not 1 <= len(specs) <= MAX_PASSES:
            raise _wrong(f"submit takes 1 to {MAX_PASSES} passes, not {len(specs)}")
        asked = [contexts.get(spec.context) for spec in specs]
        for number, context in enumerate(asked):
            if not (context.request is None or isinstance(context.request, Pass)):
                raise PieError(
                    "busy", f"pass {number}: a request is running on its context: finish it first"
                )
        plans: list[Plan] = []
        last: dict[int, Plan] = {}
        for number, (spec, context) in enumerate(zip(specs, asked, strict=True)):
            try:
                plan = self._plan(spec, context, last.get(context.id))
            except PieError as error:
                raise PieError(error.code, f"pass {number}: {error.message}") from None
            plans.append(plan)
            last[context.id] = plan
        return plans

    def _plan(self, spec: PassSpec, context: Context, before: Plan | None) -> Plan:
        begin = len(context.journal) if before is None else before.stop
        layout = context.layout if before is None else before.layout
        stop = begin + len(spec.tokens)
        self._limits.check_tokens(spec.tokens)
        self._limits.check_length(stop)
        if spec.tokens:
            layout = layout.added(self._block(spec, begin, stop, layout))
        elif spec.positions or spec.attention:
            raise _wrong("positions and attention masks are for input tokens, and there are none")
        elif not spec.questions:
            raise _wrong("nothing to do: give it input, a sample or a probe")
        questions = [
            self._question(slot, question, spec, begin)
            for slot, question in enumerate(spec.questions)
        ]
        num_bytes = sum(map(self._answer_bytes, questions))
        first = _first_adapted(spec, context, before)
        plan = Plan(context, spec.tokens, layout, stop, questions, num_bytes, spec.adapter, first)
        _check_sizes(plan)
        return plan

    def _block(self, spec: PassSpec, begin: int, stop: int, layout: Layout) -> Block:
        positions = spec.positions
        if positions is None:
            first = layout.position(begin)
            positions = range(first, first + len(spec.tokens))
        self._check_positions(spec, positions)
        if spec.attention is None:
            return Block(begin, tuple(positions))
        return self._masked(spec.attention, begin, stop, tuple(positions))

    def _check_positions(self, spec: PassSpec, positions: Sequence[int]) -> None:
        if len(positions) != len(spec.tokens):
            raise _wrong(f"{len(positions)} positions for {len(spec.tokens)} tokens")
        if max(positions) >= self._info.max_context or min(positions) < 0:
            raise _wrong(
                f"positions reach from {min(positions)} to {max(positions)}; {self._info.name} has "
                f"[0, {self._info.max_context})"
            )

    def _masked(
        self, rows: Sequence[MaskRow], begin: int, stop: int, positions: tuple[int, ...]
    ) -> Block:
        if len(rows) != stop - begin:
            raise _wrong(f"{len(rows)} attention rows for {stop - begin} tokens")
        for number, row in enumerate(rows):
            if row.num_tokens != stop:
                raise _wrong(
                    f"attention row {number} speaks of {row.num_tokens} tokens; with this pass the "
                    f"context has {stop}"
                )
            if not any(row.bits):
                raise _wrong(
                    f"attention row {number} sees nothing; the first run is FALSE: [0, n] is n "
                    "times true"
                )
        attention = tuple(row.bits for row in rows)
        looks_ahead = any(
            clipped(bits, index, index + 1).ljust(len(bits), b"\0") != bits
            for index, bits in enumerate(attention, begin)
        )
        block = Block(begin, positions, attention, looks_ahead)
        self._limits.check_layout(Layout((block,)))
        return block

    def _question(self, slot: int, question: Question, spec: PassSpec, begin: int) -> Question:
        if spec.tokens and not 0 <= question.index < len(spec.tokens):
            raise _wrong(f"slot {slot} is about input token {question.index} of {len(spec.tokens)}")
        if not spec.tokens and (question.index != 0 or begin == 0):
            raise _wrong(
                f"slot {slot} is about token {question.index}; without input there is only 0, the "
                "last token of a context that is not empty"
            )
        index = begin + question.index if spec.tokens else begin - 1
        if isinstance(question, Probe):
            self._limits.check_tokens(question.tokens)
        else:
            self._check_sample(slot, question, index + 1)
        return msgspec.structs.replace(question, index=index)

    def _answer_bytes(self, question: Question) -> int:
        if isinstance(question, Sample):
            return 4
        match question.kind:
            case "logits":
                return 4 * self._info.vocab_size
            case "hidden-state":
                return 4 * self._info.hidden_size
            case "distribution":
                return 8 * min(question.top, self._info.vocab_size)
            case _:
                return 4 * max(1, len(question.tokens))

    def _check_sample(self, slot: int, sample: Sample, length: int) -> None:
        self._limits.check_biases(sample.sampling.adjustment)
        if _counts(sample) and sample.draw > length:
            raise _wrong(
                f"slot {slot}: draw is {sample.draw}, but only {length} tokens are there to have "
                "been drawn"
            )


def check_held(held: Sequence[Pass], plans: Sequence[Plan]) -> None:
    """An instance may only hold so much of what it asked for."""
    if len(held) + len(plans) > MAX_HELD_PASSES:
        raise PieError(
            "exhausted",
            f"{len(held)} passes are held already, and {MAX_HELD_PASSES} is the limit: drop those "
            "whose answers you have",
        )
    num_bytes = sum(one.num_answer_bytes for one in held) + sum(
        plan.num_answer_bytes for plan in plans
    )
    if num_bytes > MAX_HELD_BYTES:
        raise PieError(
            "exhausted",
            f"the answers that are asked for and not taken would have {num_bytes} bytes, and "
            f"{MAX_HELD_BYTES} is the limit: take some first",
        )


def check_budget(owner: Owner, plans: Sequence[Plan]) -> None:
    """Sampled tokens count as generated ones."""
    left = owner.budget.left()
    wanted = sum(isinstance(one, Sample) for plan in plans for one in plan.questions)
    if left is not None and wanted > left:
        raise PieError(
            "quota",
            f"these passes sample {wanted} tokens; the launch's token budget has {left} left",
        )


def _check_sizes(plan: Plan) -> None:
    questions = plan.questions
    if len(questions) > MAX_SLOTS:
        raise PieError(
            "exhausted", f"{len(questions)} samples and probes; the limit is {MAX_SLOTS}"
        )
    num_counted = sum(isinstance(one, Sample) and _counts(one) for one in questions)
    if num_counted > MAX_COUNTED_SAMPLES:
        raise PieError(
            "exhausted", f"{num_counted} samples with penalties; the limit is {MAX_COUNTED_SAMPLES}"
        )
    sizes = {
        MAX_ANSWER_BYTES: ("answers", plan.num_answer_bytes),
        MAX_QUESTION_BYTES: ("masks", sum(len(one.mask or b"") for one in questions)),
    }
    for limit, (what, num_bytes) in sizes.items():
        if num_bytes > limit:
            raise PieError(
                "exhausted",
                f"its {what} would have {num_bytes} bytes, and {limit} is the limit: ask about "
                "fewer tokens in one pass",
            )


def _first_adapted(spec: PassSpec, context: Context, before: Plan | None) -> int:
    """With its input the tokens that nothing has asked for before; or the last one again."""
    length = len(context.journal) if before is None else before.stop
    if before is None and context.request is None:
        return length if spec.tokens and not context.num_open else context.first_open
    if spec.tokens or not length:
        return length
    last = context.adapters.at(length - 1) if before is None else before.adapter
    if spec.adapter != last:
        raise PieError(
            "busy",
            "a pass before it has the last token computed with another adapter: wait for that one",
        )
    return length


def spans_of(plans: Iterable[Plan]) -> dict[Context, tuple[int, int]]:
    """What each context computes, through all passes on it; what was lost of it does not count."""
    spans: dict[Context, tuple[int, int]] = {}
    for plan in plans:
        context = plan.context
        start, _ = spans.get(context, (context.num_once_computed, 0))
        asked = min((question.index for question in plan.questions), default=start)
        spans[context] = (min(start, plan.layout.start_of(asked)), plan.stop)
    return spans


def _counts(sample: Sample) -> bool:
    adjustment = sample.sampling.adjustment
    return adjustment is not None and adjustment.looks_back


def _wrong(message: str) -> PieError:
    return PieError("invalid-argument", message)
