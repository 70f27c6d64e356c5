"""Penalties, biases and log probabilities against transformers and definitions in float64."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from pie_backend.batch import Adjustment, Logprobs, Sample, Sampling
from pie_backend.engine.adjust import adjust
from pie_backend.engine.draw import draw
from support.driver import counted

VOCAB = 300


def sample_of(sampling: Sampling, prompt: list[int], drawn: list[int] | None = None) -> Sample:
    """One that draws the token after a prompt and what was drawn from it."""
    drawn = drawn or []
    return Sample(0, sampling, len(drawn), counted([*prompt, *drawn], drawn))


def adjusted(logits: torch.Tensor, adjustment: Adjustment, *tokens: list[int]) -> torch.Tensor:
    """logits [vocab] of one row, alone in its batch"""
    return adjust(
        logits.clone().unsqueeze(0), [sample_of(Sampling(adjustment=adjustment), *tokens)]
    )[0]


def reference(
    logits: torch.Tensor, adjustment: Adjustment, prompt: list[int], drawn: list[int]
) -> np.ndarray:
    """The definitions, token by token."""
    scores = logits.double().numpy().copy()
    for token in {*prompt, *drawn}:
        penalty = adjustment.repetition_penalty
        scores[token] = scores[token] * penalty if scores[token] < 0 else scores[token] / penalty
    for token in set(drawn):
        scores[token] -= adjustment.presence_penalty
        scores[token] -= adjustment.frequency_penalty * drawn.count(token)
    for token, bias in adjustment.logit_bias.items():
        scores[token] = -np.inf if bias == -100 else scores[token] + bias
    forced = [token for token, bias in adjustment.logit_bias.items() if bias == 100]
    if forced:
        scores[[token for token in range(len(scores)) if token not in forced]] = -np.inf
    return scores


def some_logits(num_rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(num_rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * 4


@pytest.mark.parametrize("penalty", [0.5, 1.3, 7.0])
def test_repetition_penalty_is_that_of_transformers(penalty: float) -> None:
    """Bit for bit, over prompt and generated tokens alike."""
    logits = some_logits(1)
    tokens = [random.Random(1).randrange(VOCAB) for _ in range(200)]
    processor = transformers.RepetitionPenaltyLogitsProcessor(penalty)
    wanted = processor(torch.tensor([tokens]), logits.clone())[0]
    found = adjusted(logits[0], Adjustment(repetition_penalty=penalty), tokens[:150], tokens[150:])
    assert torch.equal(wanted, found)


biases = st.dictionaries(
    st.integers(0, VOCAB - 1), st.sampled_from([-100.0, -3.5, 0.0, 0.25, 99.0, 100.0]), max_size=5
)
adjustments = st.builds(
    Adjustment,
    repetition_penalty=st.sampled_from([1.0, 0.7, 1.5]),
    presence_penalty=st.sampled_from([0.0, -1.0, 1.9]),
    frequency_penalty=st.sampled_from([0.0, -0.3, 2.0]),
    logit_bias=biases,
)
token_lists = st.lists(st.integers(0, VOCAB - 1), max_size=40)


@settings(max_examples=150, deadline=None)
@given(
    asked=st.lists(st.tuples(st.none() | adjustments, token_lists, token_lists), min_size=1),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_adjustments_are_their_definitions_in_every_company(
    asked: list[tuple[Adjustment | None, list[int], list[int]]], dtype: torch.dtype
) -> None:
    """In float64 within rounding, and bit for bit what the row gets alone."""
    logits = some_logits(len(asked), seed=len(asked)).to(dtype)
    rows = [
        Sample(0, Sampling())
        if adjustment is None
        else sample_of(Sampling(adjustment=adjustment), prompt, drawn)
        for adjustment, prompt, drawn in asked
    ]
    found = adjust(logits.clone(), rows)
    for i, (adjustment, prompt, drawn) in enumerate(asked):
        wanted = reference(logits[i].float(), adjustment or Adjustment(), prompt, drawn)
        np.testing.assert_allclose(found[i].double().numpy(), wanted, atol=2e-5)
        alone = adjust(logits[i : i + 1].clone(), rows[i : i + 1])[0]
        assert torch.equal(found[i].float(), alone.float())


@pytest.mark.parametrize("temperature", [0.0, 1.0, 100.0])
def test_biases_of_a_hundred_ban_and_force(temperature: float) -> None:
    """Whatever the temperature and however far the logits are apart."""
    logits = torch.zeros(1, VOCAB)
    logits[0, 7] = 500.0
    for bias, allowed in (({7: -100.0}, set(range(VOCAB)) - {7}), ({3: 100.0, 7: -100.0}, {3})):
        for seed in range(50):
            sampling = Sampling(temperature, seed=seed, adjustment=Adjustment(logit_bias=bias))
            assert draw(logits.clone(), [sample_of(sampling, [])])[0][0] in allowed


def test_forced_tokens_share_among_themselves() -> None:
    """With several at 100 the model chooses between them, filters and all."""
    logits = torch.zeros(1, VOCAB)
    logits[0, 5] = 1.0
    adjustment = Adjustment(logit_bias={5: 100.0, 9: 100.0, 11: 50.0})
    drawn = {
        draw(
            logits.clone(), [sample_of(Sampling(1.0, 0, top_p, seed=s, adjustment=adjustment), [])]
        )[0][0]
        for s in range(60)
        for top_p in (1.0, 0.99)
    }
    assert {5, 9} == drawn
    assert [5] == draw(logits.clone(), [sample_of(Sampling(adjustment=adjustment), [])])[0]


def test_greedy_goes_through_penalties() -> None:
    """The likeliest token is that of the adjusted logits."""
    logits = torch.tensor([[3.0, 2.9, 0.0, -1.0]])
    penalised = Sampling(adjustment=Adjustment(frequency_penalty=0.2))
    assert [1] == draw(logits.clone(), [sample_of(penalised, [], [0])])[0]
    assert [0] == draw(logits.clone(), [sample_of(penalised, [0], [])])[0]


def test_draws_with_and_without_options_do_not_touch_each_other() -> None:
    """Tokens and log probabilities of every row of a mixed batch are those it has alone."""
    source = random.Random(3)
    logits = some_logits(48, seed=5)
    rows = []
    for i in range(len(logits)):
        adjustment = Adjustment(1.2, 0.5, 0.3, {i: 5.0, 2: -100.0}) if i % 3 else None
        sampling = Sampling(
            source.choice([0.0, 0.8]),
            source.choice([0, 20]),
            seed=i,
            adjustment=adjustment,
            logprobs=source.choice([None, 0, 1, 5, 20]),
        )
        tokens = [source.randrange(VOCAB) for _ in range(30)]
        rows.append(
            sample_of(sampling, tokens[:20], tokens[20:]) if adjustment else sample_of(sampling, [])
        )
    drawn, logprobs = draw(logits.clone(), rows)
    for i, one in enumerate(rows):
        alone, alone_logprobs = draw(logits[i : i + 1].clone(), [one])
        assert alone == [drawn[i]]
        assert (alone_logprobs or [None]) == [logprobs[i]]


def wanted_logprobs(logits: torch.Tensor, token: int, num_top: int) -> Logprobs:
    """log_softmax in float64; ties by the lowest id."""
    found = torch.log_softmax(logits.double(), -1).tolist()
    order = sorted(range(len(found)), key=lambda one: (-found[one], one))
    return Logprobs(found[token], [(one, found[one]) for one in order[:num_top]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_top", [0, 1, 5, 20])
def test_logprobs_are_those_of_the_unprocessed_logits(dtype: torch.dtype, num_top: int) -> None:
    """Before temperature, filters, penalties and biases; within 1e-5 of float64."""
    logits = some_logits(20).to(dtype)
    logits[:, 50:60] = 9.0  # ties among the likeliest
    adjustment = Adjustment(1.5, 1.0, 1.0, {4: 100.0})
    sampling = Sampling(0.5, 3, 0.9, 0.1, adjustment=adjustment, logprobs=num_top)
    tokens, found = draw(logits.clone(), [sample_of(sampling, [1, 2, 3], [50])] * 20)
    assert [4] * 20 == tokens
    for one, values in zip(found, logits, strict=True):
        assert one is not None
        wanted = wanted_logprobs(values.float(), 4, num_top)
        assert one.chosen == pytest.approx(wanted.chosen, abs=1e-5)
        assert [token for token, _ in one.top] == [token for token, _ in wanted.top]
        assert [p for _, p in one.top] == pytest.approx([p for _, p in wanted.top], abs=1e-5)


def test_more_logprobs_than_tokens_are_all_of_them() -> None:
    """A vocabulary smaller than what is asked for gives everything it has."""
    [found] = draw(torch.tensor([[1.0, 2.0]]), [sample_of(Sampling(logprobs=20), [])])[1]
    assert found is not None
    assert [1, 0] == [token for token, _ in found.top]


def test_nothing_asked_leaves_the_logits_alone() -> None:
    """Rows without options pay for none, not even for a copy."""
    logits = some_logits(4)
    assert adjust(logits, [Sample(0, Sampling(1.0))] * 4) is logits
    assert [] == draw(logits, [Sample(0, Sampling(1.0))] * 4)[1]
