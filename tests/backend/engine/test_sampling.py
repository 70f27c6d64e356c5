"""Draws follow the distribution that transformers' warpers define, computed here in float64."""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pie_backend.batch import Sample, Sampling
from pie_backend.engine.sampling import draw_tokens, likeliest, sample
from pie_backend.rng import uniform


def reference(logits: torch.Tensor, sampling: Sampling) -> np.ndarray:
    """Probabilities by temperature, top-k, top-p, min-p in that order; ties by lowest id."""
    scores = logits.double().numpy() / sampling.temperature
    keep = np.ones(len(scores), dtype=bool)
    if 0 < sampling.top_k < len(scores):
        keep &= scores >= np.sort(scores)[-sampling.top_k]

    def probabilities() -> np.ndarray:
        weights = np.where(keep, np.exp(scores - scores.max()), 0.0)
        return weights / weights.sum()

    if sampling.top_p < 1:
        found = probabilities()
        order = np.argsort(-found, kind="stable")
        before = np.cumsum(found[order]) - found[order]
        keep[order[1:][before[1:] >= sampling.top_p]] = False
    if sampling.min_p > 0:
        found = probabilities()
        keep &= found >= sampling.min_p * found.max()
    return probabilities()


def drawn_token(logits: torch.Tensor, sampling: Sampling, number: float) -> int:
    return sample(logits.unsqueeze(0), [sampling], [number])[0]


CASES = [
    Sampling(temperature=1.0),
    Sampling(temperature=0.3),
    Sampling(temperature=2.5, top_k=5),
    Sampling(temperature=1.0, top_p=0.7),
    Sampling(temperature=1.0, min_p=0.2),
    Sampling(temperature=0.8, top_k=40, top_p=0.9, min_p=0.05),
    Sampling(temperature=1.0, top_k=1),
    Sampling(temperature=1.0, top_p=0.0),
    Sampling(temperature=1.0, top_p=0.999999),
    Sampling(temperature=1.0, min_p=1.0),
]


@pytest.mark.parametrize("sampling", CASES, ids=str)
@pytest.mark.parametrize("vocab_size", [7, 128, 1000])
def test_inverts_the_reference_distribution(sampling: Sampling, vocab_size: int) -> None:
    """Every random number falls into the interval that the reference gives its token."""
    logits = torch.randn(vocab_size, generator=torch.Generator().manual_seed(1)) * 2
    ends = np.cumsum(reference(logits, sampling))
    for number in [0.0, 1 - 2**-53, *(random.Random(0).random() for _ in range(200))]:
        token = drawn_token(logits, sampling, number)
        low = ends[token - 1] if token else 0.0
        assert low < ends[token], "a token without probability was drawn"
        assert low - 1e-5 <= number <= ends[token] + 1e-5


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(st.integers(-8, 8), min_size=2, max_size=60),
    temperature=st.sampled_from([0.1, 0.7, 1.0, 3.0]),
    top_k=st.integers(0, 70),
    top_p=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    number=st.floats(0, 1, exclude_max=True),
)
def test_draws_only_what_is_kept(
    values: list[int], temperature: float, top_k: int, top_p: float, min_p: float, number: float
) -> None:
    """With many equal logits, too, only tokens that the reference keeps are drawn."""
    sampling = Sampling(temperature, top_k, top_p, min_p)
    # Away from the boundary that float32 and float64 could see differently.
    logits = torch.tensor(values).float() * 0.83 + 0.01
    kept = reference(logits, Sampling(temperature, top_k, top_p + 1e-6, min_p * (1 - 1e-6)))
    assert kept[drawn_token(logits, sampling, number)] > 0


def test_frequencies() -> None:
    """Thousands of seeds together reproduce the probabilities (chi-squared, 1 in 10,000)."""
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -8.0])
    sampling = Sampling(temperature=1.0, top_k=5)
    expected = reference(logits, sampling)
    num_draws = 4000
    rows = [Sample(0, Sampling(1.0, 5, seed=seed)) for seed in range(num_draws)]
    counts = Counter(draw_tokens(logits.expand(num_draws, -1), rows))
    assert set(counts) == {0, 1, 2, 3, 4}
    distance = sum(
        (counts[i] - num_draws * p) ** 2 / (num_draws * p) for i, p in enumerate(expected) if p
    )
    assert distance < 23.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_draw_does_not_depend_on_the_batch(dtype: torch.dtype) -> None:
    """A row's token is the same alone and among rows with any other settings."""
    logits = (torch.randn(64, 3000, generator=torch.Generator().manual_seed(2)) * 3).to(dtype)
    source = random.Random(0)
    rows = [
        Sample(
            0,
            Sampling(
                source.choice([0.0, 0.5, 1.0]),
                source.choice([0, 3, 50, 2000]),
                source.choice([0.3, 0.95, 1.0]),
                source.choice([0.0, 0.1]),
                seed=source.getrandbits(64),
            ),
            draw=source.randrange(100),
        )
        for _ in range(64)
    ]
    together = draw_tokens(logits, rows)
    assert [draw_tokens(logits[i : i + 1], [row])[0] for i, row in enumerate(rows)] == together


@pytest.mark.parametrize("vocab_size", [5, 128, 512, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_greedy_takes_the_lowest_of_equals(vocab_size: int, dtype: torch.dtype) -> None:
    """Temperature zero is argmax, and the lowest id wins ties."""
    levels = torch.randint(0, 3, (50, vocab_size), generator=torch.Generator().manual_seed(3))
    expected = [row.index(max(row)) for row in levels.tolist()]
    assert likeliest(levels.to(dtype)) == expected
    assert draw_tokens(levels.to(dtype), [Sample(0, Sampling())] * 50) == expected


def test_tiny_temperature_is_nearly_greedy() -> None:
    """A temperature near zero neither overflows nor divides by zero."""
    logits = torch.tensor([100.0, 99.0, -100.0])
    assert drawn_token(logits, Sampling(temperature=1e-30), 0.999) == 0


def test_uniform_depends_on_seed_and_draw() -> None:
    """The same counter gives the same number; 64-bit seeds; the numbers fill [0, 1)."""
    numbers = [uniform(seed, draw) for seed in (0, 1, 2**64 - 1) for draw in range(500)]
    assert numbers == [uniform(seed, draw) for seed in (0, 1, 2**64 - 1) for draw in range(500)]
    assert len(set(numbers)) == len(numbers)
    assert all(0 <= number < 1 for number in numbers)
    assert math.isclose(sum(numbers) / len(numbers), 0.5, abs_tol=0.04)
