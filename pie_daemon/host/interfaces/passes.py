"""WIT interface `inference`: forward passes that a program puts together itself."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from pie_backend.batch import Probe, ProbeKind, Sample
from pie_daemon.errors import PieError
from pie_daemon.host.brle import packed
from pie_daemon.host.context import HostContext, Model
from pie_daemon.host.interfaces.adapters import Adapter, digest_for
from pie_daemon.host.interfaces.constraints import Constraint
from pie_daemon.host.interfaces.contexts import Context
from pie_daemon.host.interfaces.models import check_tokens
from pie_daemon.host.interfaces.requests import HeldRequest, subscribe
from pie_daemon.host.interfaces.sample_options import parse_sample_options
from pie_daemon.scheduler.layout import MAX_MASK_BYTES
from pie_daemon.scheduler.passes import Answer, MaskRow, PassSpec, Question
from pie_daemon.scheduler.planning import MAX_ANSWER_BYTES, MAX_SLOTS

MAX_PASS_BYTES = 64 << 20
"""Of one instance: what it put into forward passes that it has not dropped."""

_TOKEN_BYTES = 4


class ForwardPass:
    """A pass in the making. It holds its context: dropping the context's handle is safe."""

    def __init__(self, host: HostContext, context: Context) -> None:
        self.context = context
        self.tokens: list[int] = []
        self.positions: list[int] | None = None
        self.attention: list[MaskRow] | None = None
        self.mask: bytes | None = None
        self.questions: list[Question] = []
        self.adapter: Adapter | None = None
        """Held, so that it stays loaded."""
        self.adapter_digest: str | None = None
        self.is_submitted = False
        self._num_bytes = 0
        self._host = host
        host.table.hold(context)

    def change(self, num_bytes: int = 0) -> None:
        """Before anything is put in."""
        if self.is_submitted:
            raise PieError("closed", "this forward pass was submitted already; make a new one")
        if self._host.pass_bytes + num_bytes > MAX_PASS_BYTES:
            raise PieError(
                "exhausted",
                f"the forward passes of an instance may hold {MAX_PASS_BYTES} bytes of input, "
                "masks and questions; drop those that were submitted",
            )
        self._num_bytes += num_bytes
        self._host.pass_bytes += num_bytes

    def ask(self, question: Question, num_bytes: int) -> int:
        """The slot of its answer."""
        if len(self.questions) >= MAX_SLOTS:
            raise PieError("exhausted", f"a pass has at most {MAX_SLOTS} samples and probes")
        self.change(num_bytes)
        self.questions.append(question)
        return len(self.questions) - 1

    def allow(self, mask: bytes) -> None:
        """Only these tokens, of those allowed so far."""
        if self.mask is not None:
            both = int.from_bytes(self.mask, "little") & int.from_bytes(mask, "little")
            mask = both.to_bytes(len(mask), "little")
        if not any(mask):
            raise PieError(
                "invalid-argument",
                "the logit masks and constraints of this pass leave no token; the first run of a "
                "mask is FALSE: [0, n] is n times true",
            )
        self.change(len(mask))
        self.mask = mask

    def spec(self) -> PassSpec:
        mask = self.mask
        questions = self.questions
        if mask is not None:
            questions = [msgspec.structs.replace(one, mask=mask) for one in questions]
        return PassSpec(
            self.context.id,
            self.tokens,
            self.positions,
            self.attention,
            questions,
            self.adapter_digest,
        )

    def close(self) -> None:
        self._host.pass_bytes -= self._num_bytes
        if self.adapter is not None:
            self._host.table.release(self.adapter)
        self._host.table.release(self.context)


class Pass(HeldRequest):
    """A submitted pass."""

    def __init__(self, host: HostContext, forward: ForwardPass, request: int) -> None:
        super().__init__(host, forward.context, request)
        self.questions = forward.questions


def new_forward_pass(host: HostContext, context: Context) -> ForwardPass:
    return ForwardPass(host, context)


def give_input(
    host: HostContext, forward: ForwardPass, tokens: list[int], positions: list[int] | None
) -> None:
    if forward.tokens:
        raise PieError("invalid-argument", "this forward pass has its input already")
    _check_input(forward.context.model, tokens)
    if positions is not None and len(positions) != len(tokens):
        raise PieError(
            "invalid-argument", f"{len(positions)} positions for {len(tokens)} tokens of input"
        )
    forward.change(2 * _TOKEN_BYTES * len(tokens))
    forward.tokens, forward.positions = tokens, positions


def _check_input(model: Model, tokens: list[int]) -> None:
    check_tokens(model, tokens)
    if len(tokens) > model.info.max_context:
        raise PieError(
            "invalid-argument",
            f"{len(tokens)} tokens of input; {model.name} takes {model.info.max_context}",
        )


def attention_mask(host: HostContext, forward: ForwardPass, rows: Sequence[Sequence[int]]) -> None:
    if forward.attention is not None:
        raise PieError("invalid-argument", "this forward pass has its attention mask already")
    longest = forward.context.model.info.max_context
    masks: list[MaskRow] = []
    num_bytes = 0
    for number, runs in enumerate(rows):
        bits, num_tokens = packed(runs, longest, f"attention row {number}")
        num_bytes += len(bits)
        if num_bytes > MAX_MASK_BYTES:
            raise PieError(
                "exhausted",
                f"the attention masks of one context may have {MAX_MASK_BYTES} bytes as bits, one "
                "for each token that a token may see: mask fewer tokens",
            )
        masks.append(MaskRow(bits, num_tokens))
    forward.change(num_bytes)
    forward.attention = masks


def logit_mask(host: HostContext, forward: ForwardPass, runs: Sequence[int]) -> None:
    vocab_size = forward.context.model.info.vocab_size
    mask, num_bits = packed(runs, vocab_size, "the logit mask")
    if num_bits != vocab_size:
        raise PieError(
            "invalid-argument",
            f"the logit mask has {num_bits} bits; the vocabulary has {vocab_size} tokens",
        )
    forward.allow(mask)


def follow_constraint(host: HostContext, forward: ForwardPass, constraint: Constraint) -> None:
    """As it is now: what it accepts later does not change this pass."""
    if constraint.model is not forward.context.model:
        raise PieError(
            "invalid-argument",
            f"the constraint is for {constraint.model.name}, the context for "
            f"{forward.context.model.name}",
        )
    forward.allow(constraint.matcher.mask())


def sample(host: HostContext, forward: ForwardPass, index: int, options: str) -> int:
    return forward.ask(_sample(forward.context.model, index, options), len(options))


def _sample(model: Model, index: int, options: str) -> Sample:
    asked = parse_sample_options(options)
    sampling = asked.sampling()
    if asked.seed is None:
        sampling = msgspec.structs.replace(sampling, seed=model.scheduler.new_seed())
    return Sample(index, sampling, asked.draw)


def probe(host: HostContext, forward: ForwardPass, index: int, wanted: tuple[str, Any]) -> int:
    kind: ProbeKind = wanted[0]  # type: ignore[assignment]
    top = wanted[1] if kind == "distribution" else 0
    tokens = wanted[1] if kind == "logprobs" else []
    check_tokens(forward.context.model, tokens)
    num_bytes = _TOKEN_BYTES * max(top * 2, len(tokens))
    if num_bytes > MAX_ANSWER_BYTES:
        raise PieError(
            "exhausted",
            f"this probe asks for {num_bytes} bytes; a pass answers {MAX_ANSWER_BYTES} at most",
        )
    return forward.ask(Probe(index, kind, top, tokens), _TOKEN_BYTES * len(tokens))


def adapt(host: HostContext, forward: ForwardPass, adapter: Adapter) -> None:
    digest = digest_for(forward.context.model, adapter)
    if forward.adapter is not None:
        raise PieError("invalid-argument", "this forward pass has its adapter already")
    forward.change()
    host.table.hold(adapter)
    forward.adapter, forward.adapter_digest = adapter, digest


def submit(host: HostContext, passes: list[ForwardPass]) -> list[Pass]:
    for forward in passes:
        forward.change()
    models = {id(forward.context.model): forward.context.model for forward in passes}
    if len(models) > 1 or len({id(forward) for forward in passes}) != len(passes):
        raise PieError(
            "invalid-argument", "passes of one submit are of one model, and each comes once"
        )
    if not passes:
        return []
    (scheduler,) = (model.scheduler for model in models.values())
    requests = scheduler.submit([forward.spec() for forward in passes], host.mailbox.wake)
    for forward in passes:
        forward.is_submitted = True
    return [Pass(host, *pair) for pair in zip(passes, requests, strict=True)]


def get(host: HostContext, one: Pass) -> list[tuple[str, Any]]:
    """Blocks in the mailbox; the WIT variant `slot` for each question."""
    host.mailbox.wait(lambda: one.ready, None)
    answers = one.context.model.scheduler.take_answers(one.request)
    return [_slot(*pair) for pair in zip(one.questions, answers, strict=True)]


def next_token(host: HostContext, context: Context, tokens: list[int], options: str) -> int:
    """Blocks in the mailbox."""
    _check_input(context.model, tokens)
    question = _sample(context.model, max(0, len(tokens) - 1), options)
    scheduler = context.model.scheduler
    spec = PassSpec(context.id, tokens, None, None, [question], None)
    (request,) = scheduler.submit([spec], host.mailbox.wake)
    try:
        host.mailbox.wait(lambda: scheduler.ready(request), None)
        (token,) = scheduler.take_answers(request)
    finally:
        scheduler.drop_request(request)
    assert isinstance(token, int)
    return token


def _slot(question: Question, answer: Answer) -> tuple[str, Any]:
    if isinstance(answer, int):
        return "token", answer
    assert isinstance(question, Probe)
    values = array("f", answer.values)
    match question.kind:
        case "distribution":
            return "distribution", list(zip(answer.tokens, values.tolist(), strict=True))
        case "logprobs":
            return "logprobs", values.tolist()
        case "entropy":
            return "entropy", values[0]
        case kind:
            if sys.byteorder == "big":
                values.byteswap()
            return kind, values.tobytes()


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "[constructor]forward-pass": new_forward_pass,
    "[method]forward-pass.input": give_input,
    "[method]forward-pass.attention-mask": attention_mask,
    "[method]forward-pass.logit-mask": logit_mask,
    "[method]forward-pass.constraint": follow_constraint,
    "[method]forward-pass.sample": sample,
    "[method]forward-pass.probe": probe,
    "[method]forward-pass.adapter": adapt,
    "submit": submit,
    "next-token": next_token,
    "[method]pass.subscribe": subscribe,
    "[method]pass.get": get,
}
