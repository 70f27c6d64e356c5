"""Any order of calls and batches, against a model that computes every token from scratch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from msgspec import structs

from pie_backend.batch import Adjustment, Logprobs, Sample, Sampling
from pie_backend.dummy import Vocabulary, expected_logprobs, expected_tokens
from pie_daemon.errors import PieError
from pie_daemon.scheduler.admission import PromisePages
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.drafts import DraftParams
from pie_daemon.scheduler.journal import Journal
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.passes import Pass, PassSpec
from pie_daemon.scheduler.policy import FollowTheFirst
from pie_daemon.scheduler.pressure import Expectation
from pie_daemon.scheduler.request import CANCELLED, FLUSHED, LENGTH
from pie_daemon.scheduler.suspects import NUM_DEATHS_TO_CONVICT
from pie_daemon.scheduler.visibility import Ranges
from support.stepping import Stepper

VOCABULARY = Vocabulary(size=32, max_context=40, eos_period=12, lag=4)
OWNERS = {"a": "ann", "b": "ann", "c": "zoe"}
# Many contexts begin alike, so that they find the pages of others and wait for them.
tokens_to_append = st.one_of(
    st.lists(st.integers(1, 31), min_size=1, max_size=9),
    st.sampled_from([4, 9, 13, 18]).map(lambda length: list(range(1, length))),
)
adjustments = st.builds(
    Adjustment,
    repetition_penalty=st.sampled_from([1.0, 1.5]),
    presence_penalty=st.sampled_from([0.0, 0.5]),
    logit_bias=st.sampled_from([{}, {3: -100.0}]),
)
samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 2),
    adjustment=st.none() | adjustments,
    logprobs=st.sampled_from([None, 0, 2]),
)


@dataclass(eq=False)
class Modelled:
    """What a context must look like, and what its live request must still give."""

    id: int
    tokens: list[int] = field(default_factory=list)
    saw: list[Ranges] = field(default_factory=list)
    """What each token did not see, or will not."""
    hidden: Ranges = ()
    """From tokens to come."""
    num_open: int = 0
    request: int | None = None
    future: list[int] = field(default_factory=list)
    num_top: int | None = None
    flushing: bool = False
    passes: dict[int, list[int]] = field(default_factory=dict)
    """What those that were not taken or dropped have to answer."""

    def append(self, tokens: list[int]) -> None:
        self.tokens += tokens
        self.saw += [self.hidden] * len(tokens)

    def hide(self, start: int, end: int, visible: bool) -> None:
        hidden = {index for a, b in self.hidden for index in range(a, b)}
        named = set(range(start, end))
        self.see_but(hidden - named if visible else hidden | named, max(1, self.num_open))

    def truncate(self, length: int) -> None:
        self.num_open = max(0, self.num_open - len(self.tokens) + length)
        del self.tokens[length:], self.saw[length:]
        self.see_but({index for a, b in self.hidden for index in range(a, min(b, length))}, 1)

    def see_but(self, hidden: set[int], num_last: int) -> None:
        self.hidden = tuple((index, index + 1) for index in sorted(hidden))
        first = max(0, len(self.tokens) - num_last)
        self.saw[first:] = [self.hidden] * (len(self.tokens) - first)

    def copy(self, context_id: int) -> Modelled:
        fork = Modelled(context_id, self.tokens.copy(), self.saw.copy(), self.hidden)
        fork.num_open = self.num_open
        return fork


def refusal(call: Callable[[], None]) -> str | None:
    """The code of the error that it raises; None: it went through."""
    try:
        call()
    except PieError as error:
        return error.code
    return None


class Machine(RuleBasedStateMachine):
    """Contexts of a small pool, so that requests wait, share and copy all the time."""

    contexts: Bundle[Modelled] = Bundle("contexts")

    def __init__(self) -> None:
        super().__init__()
        self.in_flight = False
        self.num_deaths = 0
        self.live: list[Modelled] = []
        self.saved: list[tuple[Journal, Modelled]] = []

    @initialize(
        max_batch_tokens=st.sampled_from([3, 8, 64]),
        page_size=st.sampled_from([1, 3, 4]),
        share_prefixes=st.booleans(),
        min_tokens=st.sampled_from([1, 6]),
        num_pages=st.sampled_from([10, 20]),
        host_share=st.sampled_from([0, 0.25, 1]),
        expected=st.sampled_from([0, 4, 100]),
        grace_batches=st.sampled_from([0, 0, 3]),
    )
    def build(  # noqa: PLR0913 - one strategy each
        self,
        max_batch_tokens: int,
        page_size: int,
        share_prefixes: bool,
        min_tokens: int,
        num_pages: int,
        host_share: float,
        expected: int,
        grace_batches: int,
    ) -> None:
        self.num_pages = num_pages
        self.stepper = self.make_stepper(
            num_pages=num_pages,
            host_pages=int(num_pages * host_share),
            page_size=page_size,
            config=SchedulerConfig(
                max_batch_tokens=max_batch_tokens, max_batch_rows=4, share_prefixes=share_prefixes
            ),
            follow=FollowTheFirst(min_tokens),
        )
        self.state = self.stepper.state
        self.state._admission = PromisePages(
            Expectation(mean_tokens=expected, min_run_tokens=2), grace_batches=grace_batches
        )
        self.share_prefixes = share_prefixes
        for owner, user in OWNERS.items():
            self.state.owners.add(owner, user)

    def make_stepper(self, **options: Any) -> Stepper:
        return Stepper(vocabulary=VOCABULARY, **options)

    def allowed(self, sampling: Sampling) -> Sampling:
        """How tokens are drawn where that is asked for."""
        return sampling

    @precondition(lambda self: len(self.live) < 6)
    @rule(target=contexts, tokens=tokens_to_append, owner=st.sampled_from("abc"))
    def create(self, tokens: list[int], owner: str) -> Modelled:
        context = Modelled(self.state.create_context(owner))
        self.append(context, tokens)
        self.live.append(context)
        return context

    @precondition(lambda self: len(self.live) < 5)
    @rule(
        target=contexts,
        lengths=st.tuples(st.integers(5, 24), st.integers(5, 24)),
        owners=st.sampled_from(["aa", "ab", "ac"]),
        max_tokens=st.integers(1, 9),
    )
    def start_two(self, lengths: tuple[int, int], owners: str, max_tokens: int) -> Modelled:
        """Programs that begin alike at the same time."""
        started = []
        for length, owner in zip(lengths, owners, strict=True):
            started.append(self.create(list(range(1, length)), owner))
            self.generate(started[-1], max_tokens, 1, Sampling())
        return multiple(*started)  # type: ignore[return-value]

    @precondition(lambda self: len(self.live) < 5)
    @rule(
        target=contexts,
        first=st.integers(1, 8),
        lengths=st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8)),
        sampling=samplings,
    )
    def crowd(self, first: int, lengths: tuple[int, int, int], sampling: Sampling) -> Modelled:
        """Programs that have nothing in common and each want much of the pool."""
        started = []
        for number, (length, owner) in enumerate(zip(lengths, "abc", strict=True)):
            start = first + 8 * number
            started.append(self.create(list(range(start, start + length)), owner))
            self.generate(started[-1], 20, 0, sampling)
        return multiple(*started)  # type: ignore[return-value]

    @rule(context=contexts, tokens=tokens_to_append)
    def append(self, context: Modelled, tokens: list[int]) -> None:
        def call() -> None:
            self.state.append(context.id, tokens)
            context.append(tokens)
            context.num_open += len(tokens)

        self.refused_when_busy(context, call)

    @precondition(lambda self: len(self.live) < 6)
    @rule(target=contexts, context=contexts, tokens=tokens_to_append)
    def fork_computed(self, context: Modelled, tokens: list[int]) -> Modelled:
        """The way to pages that are shared and then written by both."""
        if not self.in_flight:
            self.flush(context)
            self.stepper.run()
        child = self.fork(context)
        if isinstance(child, Modelled):
            self.append(child, tokens)
        return child  # type: ignore[return-value]

    @precondition(lambda self: len(self.live) < 6)
    @rule(target=contexts, context=contexts)
    def fork(self, context: Modelled) -> Modelled:
        forks: list[Modelled] = []
        self.refused_when_busy(
            context,
            lambda: forks.append(context.copy(self.state.fork(context.id))),
        )
        self.live += forks
        return multiple(*forks)  # type: ignore[return-value]

    @precondition(lambda self: len(self.live) < 6)
    @rule(target=contexts, context=contexts)
    def save(self, context: Modelled) -> Modelled:
        """And open at once: nothing that happens later changes what was saved."""
        journals: list[Journal] = []
        self.refused_when_busy(
            context, lambda: journals.append(self.state.saving.snapshot(context.id))
        )
        return self.open_saved([(journal, context.copy(0)) for journal in journals])

    @precondition(lambda self: self.saved and len(self.live) < 6)
    @rule(target=contexts, which=st.integers(0, 99))
    def open_again(self, which: int) -> Modelled:
        """After whatever has become of the context."""
        return self.open_saved([self.saved[which % len(self.saved)]])

    def open_saved(self, saved: list[tuple[Journal, Modelled]]) -> Modelled:
        opened = []
        for journal, content in saved:
            owner = "a" if len(self.live) % 2 else "c"
            opened.append(content.copy(self.state.open_journal(owner, journal)))
        self.saved += saved
        self.live += opened
        return multiple(*opened)  # type: ignore[return-value]

    @rule(context=contexts, length=st.integers(0, 40))
    def truncate(self, context: Modelled, length: int) -> None:
        kept = length % (len(context.tokens) + 1)

        def call() -> None:
            self.state.truncate(context.id, kept)
            context.truncate(kept)

        self.refused_when_busy(context, call)

    @rule(context=contexts, place=st.integers(0, 40), length=st.integers(0, 9), show=st.booleans())
    def hide(self, context: Modelled, place: int, length: int, show: bool) -> None:
        start = place % (len(context.tokens) + 1)
        end = min(start + length, len(context.tokens))

        def call() -> None:
            self.state.set_visible(context.id, start, end, show)
            if start < end:
                context.hide(start, end, show)

        self.refused_when_busy(context, call)

    @precondition(lambda self: not self.in_flight)
    @rule(context=contexts, place=st.integers(0, 40), length=st.integers(1, 9), keep=st.booleans())
    def go_on_among_hidden(self, context: Modelled, place: int, length: int, keep: bool) -> None:
        """A context that has computed something hides from what comes."""
        self.cancel(context, True)
        self.flush(context)
        self.stepper.run()
        self.take(context)
        self.hide(context, place, length, False)
        self.append(context, [1, 2, 3] if keep else [])
        self.generate(context, 3, 1, Sampling())
        self.stepper.run()
        self.take(context)

    @rule(
        context=contexts,
        max_tokens=st.integers(1, 20),
        chunk_tokens=st.integers(0, 3),
        sampling=samplings,
        drafts=st.sampled_from([None, DraftParams(5, 1, 3), DraftParams(2, 2, 2)]),
    )
    def generate(
        self,
        context: Modelled,
        max_tokens: int,
        chunk_tokens: int,
        sampling: Sampling,
        drafts: DraftParams | None = None,
    ) -> None:
        sampling = self.allowed(sampling)
        params = GenerateParams(
            sampling, max_tokens=max_tokens, chunk_tokens=chunk_tokens, drafts=drafts
        )

        def call() -> None:
            context.request = self.state.generate(context.id, params)
            context.future = self.reference(context, max_tokens, sampling)
            context.num_open = 0
            context.num_top = sampling.logprobs

        self.refused_when_busy(context, call)

    @rule(context=contexts)
    def flush(self, context: Modelled) -> None:
        def call() -> None:
            context.request = self.state.flush(context.id)
            context.flushing = context.request is not None
            context.num_open = 0

        self.refused_when_busy(context, call)

    @rule(
        context=contexts,
        other=contexts,
        inputs=st.lists(st.lists(st.integers(1, 31), max_size=3), min_size=1, max_size=4),
        sampling=samplings,
    )
    def submit(
        self,
        context: Modelled,
        other: Modelled,
        inputs: list[list[int]],
        sampling: Sampling,
    ) -> None:
        """Passes by turns on two contexts, or all on one, each about its first and last token."""
        owners = [self.state.contexts.get(one.id).owner for one in (context, other)]
        pair = (context, other) if owners[0] is owners[1] else (context, context)
        for one in pair:
            if one.request is not None:
                self.settle(one)
        busy = any(one.request is not None for one in pair[: len(inputs)])
        sampling = structs.replace(self.allowed(sampling), logprobs=None)
        specs = [
            PassSpec(
                pair[number % 2].id,
                tokens,
                questions=[Sample(0, sampling), Sample(max(0, len(tokens) - 1), sampling)],
            )
            for number, tokens in enumerate(inputs)
        ]
        submitted: list[int] = []
        code = refusal(lambda: submitted.extend(self.state.submit(specs)))
        assert (code == "busy") == busy
        assert code in {None, "busy", "invalid-argument", "exhausted"}
        for number, request in enumerate(submitted):
            self.expect(pair[number % 2], request, inputs[number], sampling)

    @precondition(lambda self: len(self.live) < 5)
    @rule(
        target=contexts,
        context=contexts,
        inputs=st.lists(st.lists(st.integers(1, 31), max_size=3), min_size=2, max_size=3),
        sampling=samplings,
    )
    def branch(self, context: Modelled, inputs: list[list[int]], sampling: Sampling) -> Modelled:
        """Forks that go on together."""
        forks: list[Modelled] = []
        for _ in inputs:
            made = self.fork(context)
            forks += [made] if isinstance(made, Modelled) else []
        sampling = structs.replace(self.allowed(sampling), logprobs=None)
        specs = [
            PassSpec(
                fork.id,
                tokens,
                questions=[Sample(0, sampling), Sample(max(0, len(tokens) - 1), sampling)],
            )
            for fork, tokens in zip(forks, inputs, strict=False)
        ]
        submitted: list[int] = []
        if specs:
            code = refusal(lambda: submitted.extend(self.state.submit(specs)))
            assert code in {None, "invalid-argument", "exhausted"}
        for fork, tokens, request in zip(forks, inputs, submitted, strict=False):
            self.expect(fork, request, tokens, sampling)
        return multiple(*forks)  # type: ignore[return-value]

    def expect(
        self, context: Modelled, request: int, tokens: list[int], sampling: Sampling
    ) -> None:
        first = len(context.tokens) + (1 if tokens else 0)
        context.append(tokens)
        context.num_open = 0
        context.passes[request] = [
            self.next_token(context, length, sampling) for length in (first, len(context.tokens))
        ]

    @rule()
    def take_answers(self) -> None:
        for context in self.live:
            for request in [one for one in context.passes if self.state.ready(one)]:
                self.compare_answers(context.passes.pop(request), self.state.take_answers(request))
                self.state.drop_request(request)

    @rule(context=contexts, which=st.integers(0, 99))
    def drop_pass(self, context: Modelled, which: int) -> None:
        """Whatever has become of it; the others on the context go on."""
        if context.passes:
            request = list(context.passes)[which % len(context.passes)]
            self.state.drop_request(request)
            del context.passes[request]

    @rule()
    def take_all(self) -> None:
        for context in self.live:
            self.take(context)

    @rule(context=contexts)
    def take(self, context: Modelled) -> None:
        if context.request is None:
            return
        chunk = self.state.take(context.request)
        if chunk is not None:
            self.compare(context, chunk.tokens)
            assert self.logprobs(chunk.tokens, context.num_top) == chunk.logprobs
            del context.future[: len(chunk.tokens)]
            context.append(chunk.tokens)
        self.settle(context)

    @rule(context=contexts, then_drop=st.booleans())
    def cancel(self, context: Modelled, then_drop: bool) -> None:
        if context.request is None:
            return
        self.settle(context)
        if context.request is not None:
            self.state.cancel(context.request)
            assert self.state.finish(context.request) == CANCELLED
            if then_drop:
                self.state.drop_request(context.request)
            self.forget_request(context)

    @precondition(lambda self: not self.in_flight)
    @rule(context=contexts)
    def suspend(self, context: Modelled) -> None:
        """As pressure would do to a context that is not running."""
        known = self.state.contexts.get(context.id)
        if known.request is None or known.request.id not in self.state.running:
            self.state.contexts.suspend(known)

    @rule(context=contexts, priority=st.integers(-1, 1))
    def prioritise(self, context: Modelled, priority: int) -> None:
        self.state.contexts.get(context.id).priority = priority

    @rule(context=consumes(contexts))
    def drop(self, context: Modelled) -> None:
        self.state.drop_context(context.id)
        self.live.remove(context)

    @precondition(lambda self: not self.in_flight)
    @rule()
    def depart(self) -> None:
        self.in_flight = self.stepper.depart() is not None
        if not self.in_flight:
            # With nothing running there is room for everybody.
            assert not self.state.waiting
            assert not self.state._passes.parked

    @precondition(lambda self: self.in_flight)
    @rule()
    def land(self) -> None:
        self.stepper.land()
        self.in_flight = False

    @precondition(lambda self: self.num_deaths < NUM_DEATHS_TO_CONVICT - 1)
    @rule(num_steps=st.integers(0, 6))
    def die(self, num_steps: int) -> None:
        """The backend, in the middle of a batch; no program notices anything."""
        if self.in_flight:
            self.stepper.land()
        for _ in range(num_steps):
            self.stepper.step()
        self.stepper.depart()
        lost = self.stepper.die()
        assert not lost.requests
        self.in_flight = False
        self.num_deaths += 1

    @precondition(lambda self: not self.in_flight)
    @rule()
    def die_idle(self) -> None:
        assert not self.stepper.die().requests

    @precondition(lambda self: not self.in_flight)
    @rule(num_steps=st.integers(2, 20))
    def steps(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.stepper.step()

    @invariant()
    def everything_adds_up(self) -> None:
        if not hasattr(self, "state"):
            return
        self.state.check()
        running = self.state.running.values()
        assert not any(one.overdrawn for one in running if isinstance(one, Pass))
        for context in self.live:
            length = self.state.length(context.id)
            assert context.tokens == self.state.tokens(context.id, 0, length)
        if not self.share_prefixes:
            self.check_that_users_hold_no_common_page()

    def teardown(self) -> None:
        if not hasattr(self, "state"):
            return
        if self.in_flight:
            self.stepper.land()
        self.stepper.run()
        self.take_answers()
        assert not any(context.passes for context in self.live)
        for owner in OWNERS:
            self.state.drop_owner(owner)
        self.state.check()
        assert self.state.contexts.pool.num_free == self.num_pages

    def refused_when_busy(self, context: Modelled, call: Callable[[], None]) -> None:
        """Calls it; the refusals that the model foresees are fine, and change nothing."""
        if context.request is not None:
            self.settle(context)
        in_line = any(not self.state.ready(request) for request in context.passes)
        busy = context.request is not None or in_line
        code = refusal(call)
        assert (code == "busy") == busy
        assert code in {None, "busy", "invalid-argument", "exhausted"}

    def compare(self, context: Modelled, tokens: list[int]) -> None:
        """What was handed out with what has to come next."""
        assert context.future[: len(tokens)] == tokens

    def compare_answers(self, expected: list[int], answers: list[Any]) -> None:
        assert expected == answers

    def next_token(self, context: Modelled, length: int, sampling: Sampling) -> int:
        """After its first tokens, computed from scratch."""
        tokens, saw = context.tokens[:length], context.saw[:length]
        return expected_tokens(tokens, 1, sampling, VOCABULARY, saw)[0]

    def reference(self, context: Modelled, max_tokens: int, sampling: Sampling) -> list[int]:
        room = min(max_tokens, VOCABULARY.max_context - len(context.tokens))
        future = expected_tokens(context.tokens, room, sampling, VOCABULARY, context.saw)
        return future[: future.index(0) + 1] if 0 in future else future

    def logprobs(self, tokens: list[int], num_top: int | None) -> list[Logprobs]:
        return [] if num_top is None else expected_logprobs(tokens, num_top, VOCABULARY.size)

    def settle(self, context: Modelled) -> None:
        assert context.request is not None
        finish = self.state.finish(context.request)
        if finish is None:
            return
        if context.flushing:
            assert finish == FLUSHED
        else:
            assert not context.future
            stopped = bool(context.tokens) and finish.token == context.tokens[-1] == 0
            assert finish == LENGTH or stopped
        self.forget_request(context)

    def forget_request(self, context: Modelled) -> None:
        context.request, context.future, context.flushing = None, [], False

    def check_that_users_hold_no_common_page(self) -> None:
        held: dict[str, set[int]] = {"ann": set(), "zoe": set()}
        for context in self.state.contexts:
            held[context.owner.user_name].update(context.pages)
        assert held["ann"].isdisjoint(held["zoe"])
