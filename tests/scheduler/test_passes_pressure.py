"""Forward passes in a pool that is too small: the same answers as in a large one."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from pie_backend.batch import Probe, Sample, Sampling
from pie_backend.dummy import expected_tokens
from pie_daemon.errors import PieError
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.drafts import DraftParams
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.passes import MaskRow, PassSpec
from pie_daemon.scheduler.planning import spans_of
from support.stepping import Stepper

GREEDY = Sampling()
DRAW = (Sample(0, GREEDY),)
CONFIG = SchedulerConfig(max_batch_tokens=16)
PAGE = 2


class Pools:
    """The same calls on a small pool and on a large one."""

    def __init__(self, source: Random, num_pages: int) -> None:
        host_pages = source.choice([0, 3, num_pages])
        self.source = source
        self.small = Stepper(
            num_pages=num_pages, host_pages=host_pages, page_size=PAGE, config=CONFIG
        )
        self.large = Stepper(num_pages=512, page_size=PAGE, config=CONFIG)
        self.contexts: list[int] = []
        self.max_length = PAGE * num_pages - 4
        self.num_answers = 0

    def call(self, function: Callable[[Stepper], Any]) -> Any:
        found = function(self.small)
        assert found == function(self.large)
        return found

    def length(self, context: int) -> int:
        return self.small.state.length(context)

    def create(self) -> None:
        tokens = [self.source.randrange(1, 9) for _ in range(self.source.randrange(1, 10))]
        self.contexts.append(self.call(lambda stepper: stepper.context(tokens)))

    def fork(self) -> None:
        context = self.source.choice(self.contexts)
        self.contexts.append(self.call(lambda stepper: stepper.state.fork(context)))

    def drop(self) -> None:
        if len(self.contexts) > 3:
            context = self.contexts.pop(self.source.randrange(len(self.contexts)))
            self.call(lambda stepper: stepper.state.drop_context(context))

    def truncate(self) -> None:
        context = self.source.choice(self.contexts)
        length = self.source.randrange(1, self.length(context) + 1)
        self.call(lambda stepper: stepper.state.truncate(context, length))

    def hide(self) -> None:
        context = self.source.choice(self.contexts)
        start = self.source.randrange(self.length(context))
        self.call(lambda stepper: stepper.state.set_visible(context, start, start + 1, False))

    def generate(self) -> None:
        contexts = [one for one in self.contexts if self.length(one) + 3 < self.max_length]
        chosen = self.source.sample(contexts, min(len(contexts), self.source.randrange(1, 4)))
        params = GenerateParams(
            Sampling(1.0, seed=3), max_tokens=3, drafts=DraftParams(3, 1, 2), ignore_eos=True
        )

        def run(stepper: Stepper) -> list[list[int] | str]:
            def start(context: int) -> int | None:
                try:
                    return stepper.state.generate(context, params)
                except PieError:
                    return None  # everything is hidden

            requests = [start(context) for context in chosen]
            stepper.run()
            return ["" if one is None else stepper.drain(one) for one in requests]

        self.call(run)

    def spec(self, context: int, length: int) -> PassSpec:
        tokens = [self.source.randrange(1, 9) for _ in range(self.source.randrange(5))]
        end = length + len(tokens)
        if not tokens:
            return PassSpec(context, questions=[Sample(0, GREEDY), Probe(0, "entropy")])
        positions = [self.source.randrange(40) for _ in tokens]
        seen = [[self.source.random() < 0.6 for _ in range(end)] for _ in tokens]
        masks = []
        ahead = self.source.random() < 0.5
        for index, bits in enumerate(seen, length):
            shown = {place for place in range(end) if bits[place] and (ahead or place <= index)}
            number = sum(1 << place for place in shown | {index})
            masks.append(MaskRow(number.to_bytes(-(-end // 8), "little"), end))
        return PassSpec(
            context,
            tokens,
            positions if self.source.random() < 0.4 else None,
            masks if self.source.random() < 0.5 else None,
            [Sample(self.source.randrange(len(tokens)), Sampling(1.0, seed=5))]
            if self.source.random() < 0.8
            else [],
        )

    def specs(self) -> list[PassSpec]:
        lengths = {one: self.length(one) for one in self.contexts}
        specs = []
        for _ in range(self.source.randrange(1, 5)):
            context = self.source.choice(self.contexts)
            if lengths[context] + 5 < self.max_length:
                specs.append(self.spec(context, lengths[context]))
                lengths[context] += len(specs[-1].tokens)
        return specs

    def submit(self) -> None:
        """Some lists are too much for the small pool; they change neither then."""
        specs, steps, dropped = self.specs(), self.source.randrange(3), self.source.random() < 0.2

        def run(stepper: Stepper) -> list[Any]:
            passes = stepper.state.submit(specs)
            if dropped:
                stepper.state.drop_request(passes.pop(0))
            for _ in range(steps):
                stepper.step()
            stepper.run()
            found = [stepper.state.take_answers(one) for one in passes]
            for one in passes:
                stepper.state.drop_request(one)
            return found

        if specs and not self.is_refused(specs):
            self.num_answers += sum(map(len, self.call(run)))

    def is_refused(self, specs: list[PassSpec]) -> bool:
        """By the small pool."""
        plans = self.small.state._passes._planner.plan(specs, self.small.state.contexts)
        try:
            self.small.state.limits.check_fit_together(spans_of(plans), self.small.state.contexts)
        except PieError:
            return True
        return False

    def suspend(self) -> None:
        for context in self.contexts:
            if self.source.random() < 0.5:
                contexts = self.small.state.contexts
                contexts.suspend(contexts.get(context))

    def contend(self) -> None:
        """Somebody else takes nearly everything, and drives out what is cached."""
        most = self.max_length
        token = self.source.randrange(1, 9)

        def run(stepper: Stepper) -> None:
            stepper.start([token] * (most - 2), 2, owner="two")
            stepper.run()
            stepper.state.drop_owner("two")

        self.call(run)


@pytest.mark.parametrize("seed", range(24))
def test_passes_answer_the_same_in_a_small_pool(seed: int) -> None:
    """Whatever is suspended between them, with positions, masks, tokens that see later ones, hidden
    tokens, drafts and lists of passes that are admitted together."""
    source = Random(seed)
    pools = Pools(source, source.randrange(8, 17))
    pools.create()
    calls = [
        *(pools.create, pools.fork, pools.fork, pools.drop, pools.truncate, pools.hide),
        *(pools.generate, pools.submit, pools.submit, pools.submit, pools.suspend, pools.contend),
    ]
    for _ in range(150):
        if len(pools.contexts) > 7:
            pools.drop()
        source.choice(calls)()
        pools.small.state.check()

    assert pools.small.state.contexts.num_suspensions
    assert pools.num_answers
    assert not any(one.overdrawn for one in pools.small.state.running.values())


def shared_forks(num_forks: int) -> tuple[Stepper, list[int]]:
    """They fit into the pool as long as they share four of its eight pages."""
    stepper = Stepper(num_pages=8)
    trunk = stepper.context(range(1, 17))
    stepper.state.flush(trunk)
    stepper.run()
    forks = [stepper.state.fork(trunk) for _ in range(num_forks)]
    stepper.state.drop_context(trunk)
    return stepper, forks


def expected(num_forks: int) -> list[list[int]]:
    return [expected_tokens([*range(1, 17), 20 + i], 1) for i in range(num_forks)]


def test_forks_that_were_suspended_find_their_pages_together() -> None:
    """What they shared is still there: one batch for all of them."""
    stepper, forks = shared_forks(4)
    for fork in forks:
        stepper.state.contexts.suspend(stepper.state.contexts.get(fork))
    steps = len(stepper.batches)
    specs = [PassSpec(fork, [20 + i], questions=DRAW) for i, fork in enumerate(forks)]
    passes = stepper.state.submit(specs)
    stepper.run()

    assert expected(4) == [stepper.state.take_answers(one) for one in passes]
    assert len(stepper.batches) == steps + 1


def test_forks_that_lost_what_they_shared_are_admitted_apart() -> None:
    """Whether a list of passes is taken does not depend on what others have driven out."""
    stepper, forks = shared_forks(4)
    stepper.start([9] * 24, 4, owner="two")
    stepper.run()
    stepper.state.drop_owner("two")
    assert all(stepper.state.contexts.get(fork).suspended for fork in forks)

    specs = [PassSpec(fork, [20 + i], questions=DRAW) for i, fork in enumerate(forks)]
    passes = stepper.state.submit(specs)
    more = stepper.state.submit([PassSpec(forks[0], questions=DRAW)])
    stepper.run()

    assert expected(4) == [stepper.state.take_answers(one) for one in passes]
    assert expected(1) == [stepper.state.take_answers(one) for one in more]


def test_too_much_for_the_pool_is_refused_though_it_is_suspended() -> None:
    """Five forks with a page each of their own, and four pages in common."""
    stepper, forks = shared_forks(5)
    for fork in forks[:3]:
        stepper.state.contexts.suspend(stepper.state.contexts.get(fork))

    with pytest.raises(PieError, match="need 9 pages") as caught:
        stepper.state.submit([PassSpec(fork, [1]) for fork in forks])
    assert caught.value.code == "exhausted"


def test_a_later_list_does_not_grow_an_earlier_one() -> None:
    """What comes behind passes waits for pages by itself."""
    stepper = Stepper(num_pages=8)
    one, two = stepper.context([1] * 12), stepper.context([2] * 12)
    first = stepper.state.submit([PassSpec(one, [3], questions=DRAW), PassSpec(two, [3])])
    second = stepper.state.submit([PassSpec(one, [4] * 16, questions=[Sample(15, GREEDY)])])
    batch = stepper.step()
    assert batch is not None
    assert 2 == len(batch.rows)
    stepper.run()

    assert [expected_tokens([1] * 12 + [3], 1)] == [stepper.state.take_answers(first[0])]
    found = stepper.state.take_answers(second[0])
    assert expected_tokens([1] * 12 + [3] + [4] * 16, 1) == found
