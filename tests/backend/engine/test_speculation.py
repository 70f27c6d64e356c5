"""Guesses verified by the engine in float32: the same tokens, and the model's own distribution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from pie_backend.batch import Adjustment, Sampling
from pie_backend.engine.engine import Engine
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.drafts import DraftParams, NgramIndex
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.state import SchedulerState
from support.checkpoints import Checkpoint, prompts

NUM_TOKENS = 40
DRAFTS = DraftParams(max_draft=6, min_match=1)


class Oracle:
    """Guesses what comes, and every fifth time something else: all ways of being wrong."""

    def __init__(self) -> None:
        self.known: list[list[int]] = []
        self.num_asked = 0

    def draft(self, journal: Sequence[int], num_tokens: int) -> list[int]:
        length = len(journal)
        whole = next((one for one in self.known if one[:length] == list(journal)), [])
        guessed = whole[length : length + num_tokens]
        self.num_asked += 1
        if guessed and self.num_asked % 5 == 0:
            place = self.num_asked // 5 % len(guessed)
            guessed[place] = (guessed[place] + 1) % 512
        return guessed


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> Oracle:
    one = Oracle()
    monkeypatch.setattr(NgramIndex, "draft", lambda _, *arguments: one.draft(*arguments))
    return one


def new_state(engine: Engine) -> SchedulerState:
    return SchedulerState(
        engine.info, SchedulerConfig(max_draft_tokens=2048), lambda token: b"", lambda: 0.0
    )


def generate(
    state: SchedulerState, engine: Engine, prompts: list[list[int]], params: GenerateParams
) -> list[list[int]]:
    requests = []
    for prompt in prompts:
        context = state.create_context("one")
        state.append(context, prompt)
        requests.append(state.generate(context, params))
    while (batch := state.decide()) is not None:
        state.complete(engine.execute(batch))
        state.check()
    chunks = [state.take(request) for request in requests]
    return [chunk.tokens for chunk in chunks if chunk is not None]


def params(sampling: Sampling, drafts: DraftParams | None, **changes: Any) -> GenerateParams:
    return GenerateParams(sampling, max_tokens=NUM_TOKENS, chunk_tokens=0, drafts=drafts, **changes)


def test_greedy_tokens_are_those_of_transformers(
    checkpoint: Checkpoint, open_engine: Callable[..., Engine], oracle: Oracle
) -> None:
    """On every architecture, with guesses right and wrong in rows of many lengths."""
    engine = open_engine(checkpoint)
    group = prompts(4)
    checkpoint.generate_all(group)
    expected = [checkpoint.generate(prompt, NUM_TOKENS) for prompt in group]
    oracle.known = [[*a, *b] for a, b in zip(group, expected, strict=True)]

    state = new_state(engine)
    assert expected == generate(state, engine, group, params(Sampling(), DRAFTS))
    assert 0.5 < state.counters.draft_acceptance < 1
    assert state.counters.steps <= NUM_TOKENS / 2
    assert len({token for tokens in expected for token in tokens}) > 20


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0, seed=3),
        Sampling(temperature=0.8, top_k=40, top_p=0.95, min_p=0.01, seed=9),
        Sampling(adjustment=Adjustment(1.3, 0.5, 0.7)),
        Sampling(adjustment=Adjustment(logit_bias=dict.fromkeys(range(0, 512, 3), -100.0))),
        Sampling(temperature=1.2, seed=4, adjustment=Adjustment(1.1, -0.5, -0.5, {7: 3.0})),
    ],
)
def test_drawn_tokens_are_those_of_plain_decoding(
    sampling: Sampling, qwen3: Checkpoint, open_engine: Callable[..., Engine], oracle: Oracle
) -> None:
    """Under seeds, filters, penalties that count accepted guesses, and biases."""
    engine = open_engine(qwen3)
    group = prompts(3)
    plain = generate(new_state(engine), engine, group, params(sampling, None))
    oracle.known = [[*a, *b] for a, b in zip(group, plain, strict=True)]
    state = new_state(engine)
    assert plain == generate(state, engine, group, params(sampling, DRAFTS))
    assert state.counters.draft_acceptance > 0.4


def test_repetitions_are_found_and_change_nothing(
    qwen3: Checkpoint, open_engine: Callable[..., Engine]
) -> None:
    """A bias narrows the choice to few tokens, so that the real index has much to find."""
    engine = open_engine(qwen3)
    bans = {n: -100.0 for n in range(512) if n % 64}
    sampling = Sampling(adjustment=Adjustment(logit_bias=bans), temperature=0.3, seed=1)
    group = prompts(3)
    plain = generate(new_state(engine), engine, group, params(sampling, None))
    state = new_state(engine)
    assert plain == generate(state, engine, group, params(sampling, DRAFTS))
    assert state.counters.accepted_tokens > 5


def test_the_distribution_after_a_guess_is_the_models(
    qwen3: Checkpoint, open_engine: Callable[..., Engine], oracle: Oracle
) -> None:
    """Seeds by the thousand (chi-squared, 1 in 10,000): in place of the guess and after it."""
    engine = open_engine(qwen3, kv_pages=4000)
    prompt = prompts(1)[0][:20]
    sampling = Sampling(temperature=1.5, top_k=4)
    first = top_probabilities(qwen3.logits(prompt)[-1], sampling)
    guess = max(first, key=lambda token: first[token])
    oracle.known = [[*prompt, guess]]
    then = top_probabilities(qwen3.logits([*prompt, guess])[-1], sampling)

    state = new_state(engine)
    parent = state.create_context("one")
    state.append(parent, prompt)
    requests = []
    for seed in range(2500):
        one = Sampling(temperature=1.5, top_k=4, seed=seed)
        drawing = GenerateParams(one, max_tokens=2, chunk_tokens=0, drafts=DRAFTS)
        requests.append(state.generate(state.fork(parent), drawing))
    while (batch := state.decide()) is not None:
        state.complete(engine.execute(batch))
    pairs = [chunk.tokens for chunk in map(state.take, requests) if chunk is not None]
    assert state.counters.drafted_tokens > 1000
    assert distance(Counter(a for a, _ in pairs), first) < 21.1
    assert distance(Counter(b for a, b in pairs if a == guess), then) < 21.1


def top_probabilities(logits: torch.Tensor, sampling: Sampling) -> dict[int, float]:
    top = logits.topk(sampling.top_k)
    probabilities = (top.values / sampling.temperature).softmax(-1)
    return dict(zip(top.indices.tolist(), probabilities.tolist(), strict=True))


def distance(counts: Counter[int], expected: dict[int, float]) -> float:
    """Of counts from their expectation, with as many degrees of freedom as tokens less one."""
    assert set(counts) <= set(expected)
    total = counts.total()
    assert total > 500
    return sum((counts[token] - total * p) ** 2 / (total * p) for token, p in expected.items())
