"""Bursts change nothing but how often the scheduler is asked."""

from __future__ import annotations

import random

import pytest

from pie_backend.batch import Adjustment, BackendConfig, BatchResult, Sampling
from pie_backend.bursts import Bursts
from pie_backend.dummy import DummyBackend
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.drafts import DraftParams
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.passes import PassSpec
from pie_daemon.scheduler.request import LENGTH
from support.purse import Purse
from support.stepping import Stepper

PROMPT = [3, 1, 4, 1, 5]


def stepper(max_burst: int = 16, num_pages: int = 64) -> Stepper:
    config = BackendConfig(name="dummy", kind="dummy", path="", page_size=4, kv_pages=num_pages)
    return Stepper(
        config=SchedulerConfig(max_burst=max_burst),
        backend=Bursts(DummyBackend(config)),
    )


def whole(num_tokens: int, **more: object) -> GenerateParams:
    """Handed over at the end."""
    return GenerateParams(max_tokens=num_tokens, chunk_tokens=0, **more)  # type: ignore[arg-type]


def by_the_token(num_tokens: int) -> GenerateParams:
    return GenerateParams(max_tokens=num_tokens, chunk_tokens=1)


def test_nobody_is_asked_between_the_tokens_of_a_burst() -> None:
    steps = stepper()
    request = steps.state.generate(steps.context(PROMPT), whole(33))
    assert 3 == steps.run()  # the prompt's token, then twice sixteen
    assert steps.drain(request) == steps.expected(PROMPT, 33)
    assert steps.state.finish(request) == LENGTH
    assert 33 + len(PROMPT) - 1 == steps.state.counters.computed_tokens


def test_the_shortest_of_a_batch_ends_it() -> None:
    steps = stepper()
    lengths = (3, 9, 30)
    requests = [
        steps.state.generate(steps.context([n, *PROMPT], owner=str(n)), whole(n)) for n in lengths
    ]
    steps.run()
    assert [batch.passes for batch in steps.batches] == [1, 2, 6, 16, 5]
    for n, request in zip(lengths, requests, strict=True):
        assert steps.drain(request) == steps.expected([n, *PROMPT], n)


@pytest.mark.parametrize(
    "params",
    [
        whole(8, stop_strings=("never said",)),
        whole(8, drafts=DraftParams()),
        whole(8, sampling=Sampling(adjustment=Adjustment(frequency_penalty=0.5))),
    ],
    ids=["stop strings", "guesses", "penalties"],
)
def test_who_looks_at_every_token_has_none(params: GenerateParams) -> None:
    steps = stepper()
    steps.state.generate(steps.context(PROMPT), whole(20))
    steps.state.generate(steps.context(PROMPT, owner="two"), params)
    while len(steps.state.running) != 1:
        steps.step()
    assert {1} == {batch.passes for batch in steps.batches}


def test_a_chunk_is_not_late() -> None:
    steps = stepper()
    request = steps.state.generate(
        steps.context(PROMPT), GenerateParams(max_tokens=12, chunk_tokens=5)
    )
    chunks: list[list[int]] = []
    while steps.step() is not None:
        while (chunk := steps.state.take(request)) is not None:
            chunks.append(chunk.tokens)
    assert [5, 5, 2] == [len(chunk) for chunk in chunks]
    assert [1, 4, 5, 2] == [batch.passes for batch in steps.batches]


def test_who_takes_every_token_is_told_of_each_pass() -> None:
    steps = stepper()
    quiet = steps.state.generate(steps.context(PROMPT, owner="two"), whole(30))
    request = steps.state.generate(steps.context(PROMPT), by_the_token(19))
    chunks: list[list[int]] = []
    hear = steps.hear

    def take(result: BatchResult) -> None:
        hear(result)
        while (chunk := steps.state.take(request)) is not None:
            chunks.append(chunk.tokens)

    steps.hear = take  # type: ignore[method-assign]
    while steps.step() is not None:
        chunks.append(steps.drain(request))
    assert [token for chunk in chunks for token in chunk] == steps.expected(PROMPT, 19)
    assert {0, 1} == {len(chunk) for chunk in chunks}
    assert [(1, False), (16, True), (2, True), (11, False)] == [
        (batch.passes, batch.told) for batch in steps.batches
    ]
    assert steps.drain(quiet) == steps.expected(PROMPT, 30)
    assert 19 + 30 + 2 * (len(PROMPT) - 1) == steps.state.counters.computed_tokens


@pytest.mark.parametrize("num_told", [1, 5, 15])
def test_a_told_burst_may_be_cancelled_after_each_of_its_passes(num_told: int) -> None:
    steps = stepper()
    context = steps.context(PROMPT)
    request = steps.state.generate(context, by_the_token(40))
    steps.step()
    taken = steps.drain(request)
    steps.depart()
    results: list[BatchResult] = []
    last = steps.backend.execute_telling(steps.batches[-1], results.append)
    for number, result in enumerate(results, 1):
        steps.hear(result)
        if number < num_told:
            taken += steps.drain(request)
        elif number == num_told:
            steps.state.cancel(request)
            steps.state.check()
    steps.state.complete(last)
    steps.state.check()
    assert len(PROMPT) + num_told == steps.state.length(context)
    again = steps.state.generate(context, by_the_token(4))
    steps.run()
    assert taken + steps.drain(again) == steps.expected(PROMPT, num_told + 4)


def test_a_budget_that_is_used_up_within_a_told_burst_ends_it_there() -> None:
    steps = stepper()
    steps.state.owners.add("one", budget=Purse(11))
    requests = [steps.state.generate(steps.context([n, *PROMPT]), by_the_token(20)) for n in (1, 2)]
    steps.run()
    made = [steps.drain(request) for request in requests]
    assert 11 == sum(map(len, made))
    for n, tokens in zip((1, 2), made, strict=True):
        assert tokens == steps.expected([n, *PROMPT], len(tokens))
    steps.state.check()


@pytest.mark.parametrize("num_told", [1, 4, 14])
def test_what_was_told_before_a_death_is_neither_lost_nor_told_again(num_told: int) -> None:
    steps = stepper()
    request = steps.state.generate(steps.context(PROMPT), by_the_token(40))
    steps.step()
    taken = steps.drain(request)
    steps.depart()
    results: list[BatchResult] = []
    steps.backend.execute_telling(steps.batches[-1], results.append)
    for result in results[:num_told]:
        steps.hear(result)
        taken += steps.drain(request)
    assert 1 + num_told == len(taken)
    steps.die()
    steps.run()
    assert taken + steps.drain(request) == steps.expected(PROMPT, 40)


def test_passes_of_programs_have_none() -> None:
    steps = stepper()
    steps.state.generate(steps.context(PROMPT), whole(20))
    steps.step()
    steps.state.submit([PassSpec(steps.context([], owner="two"), tokens=PROMPT)])
    steps.step()
    assert 1 == steps.batches[-1].passes
    steps.step()
    assert 16 == steps.batches[-1].passes


def test_who_waits_for_room_waits_for_single_passes() -> None:
    """So that whoever ends makes room at once."""
    steps = stepper(num_pages=6)
    steps.state.generate(steps.context(PROMPT), whole(12))
    steps.step()
    steps.state.generate(steps.context([9] * 12, owner="two"), whole(8))
    steps.step()
    assert steps.state.waiting
    assert 1 == steps.batches[-1].passes
    steps.run()


def test_a_stop_token_ends_it() -> None:
    steps = stepper()
    expected = steps.expected(PROMPT, 20)
    length = expected.index(expected[9]) + 1
    params = whole(20, stop_tokens=(expected[9],))
    request = steps.state.generate(steps.context(PROMPT), params)
    steps.run()
    assert steps.drain(request) == expected[:length]
    assert length + len(PROMPT) - 1 == steps.state.counters.computed_tokens


def test_a_cancellation_forgets_what_the_burst_makes() -> None:
    steps = stepper()
    context = steps.context(PROMPT)
    request = steps.state.generate(context, whole(40))
    steps.step()
    steps.depart()
    steps.state.cancel(request)
    steps.land()
    assert len(PROMPT) == steps.state.length(context)
    again = steps.state.generate(context, whole(4))
    steps.run()
    assert steps.drain(again) == steps.expected(PROMPT, 4)


@pytest.mark.parametrize("seed", range(20))
def test_loads_come_out_the_same(seed: int) -> None:
    """Whatever is asked in whatever order, in a pool that is sometimes too small for all."""
    assert answers_of(stepper(16, num_pages=24), seed) == answers_of(stepper(1, 24), seed)


def answers_of(steps: Stepper, seed: int) -> list[list[int]]:
    choices = random.Random(seed)
    sampled = Sampling(temperature=1.0, seed=seed)
    requests: list[int] = []
    for number in range(12):
        prompt = [choices.randrange(100) for _ in range(choices.randrange(1, 9))]
        params = GenerateParams(
            max_tokens=choices.randrange(1, 30),
            chunk_tokens=choices.choice([0, 0, 1, 6]),
            sampling=choices.choice([Sampling(), sampled]),
        )
        requests.append(steps.state.generate(steps.context(prompt, owner=str(number % 3)), params))
        for _ in range(choices.randrange(4)):
            steps.step()
    steps.run()
    return [steps.drain(request) for request in requests]
