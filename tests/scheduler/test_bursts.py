"""Bursts change nothing but how often the scheduler is asked."""

from __future__ import annotations

import random

import pytest

from pie_backend.batch import Adjustment, BackendConfig, Sampling
from pie_backend.bursts import Bursts
from pie_backend.dummy import DummyBackend
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.drafts import DraftParams
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.passes import PassSpec
from pie_daemon.scheduler.request import LENGTH
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
        GenerateParams(max_tokens=8, chunk_tokens=1),
        whole(8, stop_strings=("never said",)),
        whole(8, drafts=DraftParams()),
        whole(8, sampling=Sampling(adjustment=Adjustment(frequency_penalty=0.5))),
    ],
    ids=["by the token", "stop strings", "guesses", "penalties"],
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
