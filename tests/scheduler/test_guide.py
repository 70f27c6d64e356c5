"""Generations under a constraint: what is drawn, where they end, and that none waits for others."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from pie_backend.batch import Adjustment, BackendConfig, Sampling
from pie_backend.dummy import DummyBackend, Vocabulary
from pie_daemon.errors import PieError
from pie_daemon.scheduler.drafts import DraftParams
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.request import BUDGET, COMPLETE, LENGTH, Finish
from pie_daemon.scheduler.service import Scheduler
from support.stepping import Stepper, letters

PROMPT = [11, 12, 13, 14, 15, 16]
VOCAB = 512
ENDS = (0,)


def packed(tokens: set[int]) -> bytes:
    return sum(1 << token for token in tokens).to_bytes(VOCAB // 8, "little")


@dataclass
class Steps:
    """A matcher that allows one set of tokens after the other, and the end after the last."""

    allowed: list[set[int]]
    may_end_after: int | None = None
    """Steps after which the text may end as well; None: only after all of them."""
    fails_at: int | None = None
    """The step whose mask cannot be made."""
    is_slow: bool = False
    go_on: threading.Event | None = None
    place: int = 0
    ended: bool = False
    seen: list[int] = field(default_factory=list)

    def mask(self) -> bytes:
        if self.go_on is not None and self.place:
            assert self.go_on.wait(30)
        if self.place == self.fails_at:
            raise PieError("exhausted", "too complex")
        tokens = set() if self.is_over else set(self.allowed[self.place])
        return packed(tokens | (set(ENDS) if self.allows_end else set()))

    def accept(self, token: int) -> None:
        assert token in ENDS or token in self.allowed[self.place]
        self.seen.append(token)
        self.ended |= token in ENDS
        self.place += token not in ENDS

    def rollback(self, num_tokens: int) -> None:
        raise NotImplementedError

    def fork(self) -> Steps:
        return replace(self, seen=self.seen.copy())

    @property
    def complete(self) -> bool:
        return self.is_over

    @property
    def is_over(self) -> bool:
        return self.ended or self.place == len(self.allowed)

    @property
    def allows_end(self) -> bool:
        return self.is_over or (self.may_end_after is not None and self.place >= self.may_end_after)


def run(
    stepper: Stepper, params: GenerateParams, prompt: Sequence[int] = PROMPT
) -> tuple[list[int], Finish | None]:
    """Drives masks and batches as the service does."""
    state = stepper.state
    request = state.generate(stepper.context(prompt), params)
    while state.finish(request) is None and not state.ready(request):
        for guide in state.guides_due():
            guide.make()
        state.conclude()
        stepper.step()
    chunk = state.take(request)
    finish = state.finish(request)
    state.drop_request(request)
    state.check()
    assert not state.guided
    return [] if chunk is None else chunk.tokens, finish


def asked(matcher: Steps, **options: Any) -> GenerateParams:
    return GenerateParams(matcher=matcher, **{"chunk_tokens": 0, "max_tokens": 32, **options})


def test_only_allowed_tokens_are_drawn_until_nothing_may_follow() -> None:
    """The reason is `constraint-complete`; the matcher saw exactly what was drawn."""
    matcher = Steps([{7}, {8, 9}, set(range(20, 30))])
    tokens, finish = run(Stepper(), asked(matcher))

    assert (COMPLETE, 3) == (finish, len(tokens))
    assert all(token in allowed for token, allowed in zip(tokens, matcher.allowed, strict=True))
    assert matcher.seen == tokens


def test_it_ends_as_usual_as_well() -> None:
    """By length, a stop token, a stop string, the budget, or the end where the text may end."""
    steps = [{30}, {31}, {32}, {33}]
    assert ([30, 31], LENGTH) == run(Stepper(), asked(Steps(steps), max_tokens=2))
    stop = Finish("stop-token", token=32)
    assert ([30, 31, 32], stop) == run(Stepper(), asked(Steps(steps), stop_tokens=(32,)))
    text = letters(31).decode()
    stopped = run(Stepper(), asked(Steps(steps), stop_strings=(text,)))
    assert ([30, 31], Finish("stop-string", text=text)) == stopped
    ended = run(Stepper(vocabulary=Vocabulary(eos_period=1)), asked(Steps(steps, 2)))
    assert ([30, 31, 0], Finish("stop-token", token=0)) == ended


def test_completion_goes_before_the_limits() -> None:
    """A text that is whole with its last token is complete."""
    assert COMPLETE == run(Stepper(), asked(Steps([{7}, {8}]), max_tokens=2))[1]
    assert BUDGET != run(Stepper(), asked(Steps([{7}])))[1]


FREE = set(range(1, VOCAB))
ROUND = [{11}, {12, 40}, {13}, {14}, {11, 40}]


@pytest.mark.parametrize(
    "steps",
    [
        Steps(ROUND * 4),
        Steps([FREE] * 30),
        Steps([FREE] * 30, may_end_after=3),
        Steps([*ROUND, FREE, {7}, FREE] * 3),
        Steps([FREE] * 8, fails_at=6),
    ],
    ids=["narrow", "free", "may end", "mixed", "fails"],
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sampling": Sampling(1.0, seed=3)},
        {"sampling": Sampling(adjustment=Adjustment(1.3, 0.5, 0.25))},
        {"max_tokens": 7},
        {"stop_tokens": (14,)},
    ],
    ids=["greedy", "drawn", "penalised", "length", "stop"],
)
def test_guesses_change_nothing_under_a_constraint(steps: Steps, options: dict[str, Any]) -> None:
    """The same tokens and the same end as without, whatever the guesses run into."""
    vocabulary = Vocabulary(lag=4, eos_period=25)

    def outcome(drafts: DraftParams | None) -> tuple[Any, list[int], int]:
        stepper = Stepper(vocabulary=vocabulary)
        matcher = replace(steps, seen=[])
        try:
            found: Any = run(stepper, asked(matcher, drafts=drafts, **options), PROMPT * 2)
        except PieError as error:
            found = error.code
        return found, matcher.seen, len(stepper.batches)

    plain, plainly_seen, num_plain = outcome(None)
    guessed, seen, num_batches = outcome(DraftParams(max_draft=4, min_match=1, max_match=3))

    assert (plain, plainly_seen) == (guessed, seen)
    assert num_batches <= num_plain


def test_guesses_save_batches_under_a_constraint() -> None:
    """What the constraint forces and the text repeats is verified several tokens at a time."""
    stepper = Stepper()
    drafts = DraftParams(max_draft=4, min_match=1, max_match=3)
    tokens, finish = run(stepper, asked(Steps([{11}, {12}, {13}, {14}] * 5), drafts=drafts))

    assert ([11, 12, 13, 14] * 5, COMPLETE) == (tokens, finish)
    assert len(stepper.batches) < 12


def test_an_empty_text_is_complete_at_once() -> None:
    """No batch is computed for it."""
    stepper = Stepper()
    assert ([], COMPLETE) == run(stepper, asked(Steps([])))
    assert not stepper.batches


def test_ends_are_not_drawn_when_they_are_ignored() -> None:
    """The text goes on for as long as anything may follow."""
    vocabulary = Vocabulary(eos_period=1)
    tokens, finish = run(
        Stepper(vocabulary=vocabulary), asked(Steps([{7}, {8}, {9}], 0), ignore_eos=True)
    )
    assert ([7, 8, 9], COMPLETE) == (tokens, finish)


@pytest.mark.parametrize(
    ("biases", "expected"),
    [({7: -100.0}, [8]), ({8: 100.0}, [8]), ({7: 100.0, 500: 100.0}, [7]), ({3: 5.0}, None)],
)
def test_biases_work_within_the_mask(biases: dict[int, float], expected: list[int] | None) -> None:
    """What is forced or forbidden is so among the allowed tokens."""
    sampling = Sampling(adjustment=Adjustment(logit_bias=biases))
    tokens, _ = run(Stepper(), asked(Steps([{7, 8}]), sampling=sampling))
    assert tokens == expected or (expected is None and tokens[0] in (7, 8))


def test_a_mask_and_biases_that_leave_nothing_are_refused() -> None:
    """At once when the first token shows it, else where it happens."""
    sampling = Sampling(adjustment=Adjustment(logit_bias={9: 100.0}))
    for steps in ([{7}], [{9}, {7}]):
        with pytest.raises(PieError, match="leave no token to draw") as refused:
            run(Stepper(), asked(Steps(steps), sampling=sampling))
        assert "invalid-argument" == refused.value.code


def test_a_matcher_that_fails_fails_its_generation_only() -> None:
    """The context is as it was before what was not handed out; the other goes on."""
    stepper = Stepper()
    other = stepper.state.generate(stepper.context(PROMPT), GenerateParams(max_tokens=4))
    with pytest.raises(PieError, match="too complex") as refused:
        run(stepper, asked(Steps([{7}, {8}, {9}], fails_at=2)))
    assert "exhausted" == refused.value.code
    stepper.run()
    chunk = stepper.state.take(other)
    assert chunk is not None
    assert stepper.expected(PROMPT, 4) == chunk.tokens


def test_a_cancelled_one_leaves_nothing() -> None:
    """Even while it waits for its mask."""
    stepper = Stepper()
    state = stepper.state
    context = stepper.context(PROMPT)
    request = state.generate(context, asked(Steps([{7}, {8}, {9}]), chunk_tokens=1))
    stepper.step()
    assert state.guides_due()
    assert stepper.step() is None
    state.cancel(request)
    assert not state.guides_due()
    assert (len(PROMPT), []) == (state.length(context), state.conclude())
    state.check()


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    backend = DummyBackend(BackendConfig(name="dummy", kind="dummy", path=""))
    scheduler = Scheduler(backend, letters)
    scheduler.start()
    yield scheduler
    scheduler.stop()


def start(scheduler: Scheduler, matcher: Steps | None, done: threading.Event, length: int) -> int:
    context = scheduler.create_context("owner")
    scheduler.append(context, PROMPT)
    params = GenerateParams(matcher=matcher, chunk_tokens=0, max_tokens=length)
    return scheduler.generate(context, params, done.set)


def test_a_slow_mask_holds_up_its_own_generation_only(scheduler: Scheduler) -> None:
    """Others finish while it is being made; then it goes on."""
    go_on = threading.Event()
    slow_done, quick_done = threading.Event(), threading.Event()
    slow = start(scheduler, Steps([{7}, {8}], is_slow=True, go_on=go_on), slow_done, 9)
    quick = start(scheduler, Steps([{7}] * 50), quick_done, 60)

    assert quick_done.wait(30)
    assert COMPLETE == (scheduler.take(quick) and scheduler.finish(quick))
    assert not scheduler.ready(slow)
    go_on.set()
    assert slow_done.wait(30)
    chunk = scheduler.take(slow)
    assert chunk is not None
    assert ([7, 8], COMPLETE) == (chunk.tokens, scheduler.finish(slow))


def test_many_constrained_and_free_generations_share_batches(scheduler: Scheduler) -> None:
    """Each keeps to its own constraint."""
    events = [threading.Event() for _ in range(24)]
    running = [
        start(scheduler, Steps([{i + 1}] * (i + 1)) if i % 3 else None, done, 30)
        for i, done in enumerate(events)
    ]
    for i, (request, done) in enumerate(zip(running, events, strict=True)):
        assert done.wait(30)
        chunk = scheduler.take(request)
        assert chunk is not None
        expected = [i + 1] * (i + 1) if i % 3 else chunk.tokens
        assert (expected, COMPLETE if i % 3 else LENGTH) == (
            chunk.tokens,
            scheduler.finish(request),
        )
    scheduler.check()
