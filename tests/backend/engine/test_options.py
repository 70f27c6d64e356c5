"""Generation options through the whole engine, over batches that mix everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pie_backend.batch import Adjustment, Sampling
from pie_backend.engine.engine import Engine
from support.checkpoints import Checkpoint, prompts
from support.driver import Driver

OpenEngine = Callable[..., Engine]
pytestmark = pytest.mark.slow

MIXED = [
    Sampling(),
    Sampling(adjustment=Adjustment(repetition_penalty=1.3), logprobs=3),
    Sampling(1.0, seed=4),
    Sampling(1.0, seed=4, logprobs=0),
    Sampling(0.7, 50, seed=9, adjustment=Adjustment(1.1, 0.5, 0.5, {3: -100.0}), logprobs=20),
    Sampling(adjustment=Adjustment(logit_bias={17: 100.0}), logprobs=1),
]


def reference(checkpoint: Checkpoint, prompt: list[int], num_tokens: int, **options: Any) -> Any:
    found = checkpoint.model.generate(
        torch.tensor([prompt]), max_new_tokens=num_tokens, do_sample=False, **options
    )
    return found[0, len(prompt) :].tolist()


@pytest.mark.parametrize("penalty", [0.8, 1.3])
def test_greedy_with_a_repetition_penalty_is_that_of_transformers(
    qwen3: Checkpoint, open_engine: OpenEngine, penalty: float
) -> None:
    """Whole prompts together and in chunks: nothing is counted twice."""
    sampling = Sampling(adjustment=Adjustment(repetition_penalty=penalty))
    chosen = prompts(16)[::4]
    expected = [reference(qwen3, prompt, 24, repetition_penalty=penalty) for prompt in chosen]
    plain = [qwen3.generate(prompt, 24) for prompt in chosen]
    assert plain != expected
    for chunk in (None, 7):
        driver = Driver(open_engine(qwen3))
        found = driver.run([driver.add(prompt, 24, sampling) for prompt in chosen], chunk)
        assert expected == found


def test_rows_with_and_without_options_share_batches(
    qwen3: Checkpoint, open_engine: OpenEngine
) -> None:
    """Prefill chunks and decoding, six kinds of options: every row as if it were alone."""
    chosen = prompts(16)[4:10]

    def run(which: list[int], chunk: int | None) -> list[Any]:
        driver = Driver(open_engine(qwen3))
        sequences = [driver.add(chosen[i], 12, MIXED[i]) for i in which]
        driver.run(sequences, chunk)
        return sequences

    alone = [run([i], None)[0] for i in range(len(MIXED))]
    together = run(list(range(len(MIXED))), 9)
    for one, other, sampling in zip(alone, together, MIXED, strict=True):
        assert one.generated == other.generated
        assert len(other.logprobs) == (0 if sampling.logprobs is None else 12)
        for mine, its in zip(one.logprobs, other.logprobs, strict=True):
            assert mine.chosen == pytest.approx(its.chosen, abs=1e-4)
            assert [token for token, _ in mine.top] == [token for token, _ in its.top]
    assert [17] * 12 == together[5].generated
    assert 3 not in together[4].generated


def test_logprobs_are_those_of_the_model(qwen3: Checkpoint, open_engine: OpenEngine) -> None:
    """Teacher-forced through transformers, with penalties on that must not show in them."""
    prompt = prompts(16)[5]
    driver = Driver(open_engine(qwen3))
    sequence = driver.add(prompt, 10, MIXED[4])
    [generated] = driver.run([sequence])
    known = torch.log_softmax(qwen3.logits(prompt + generated).double(), -1)[len(prompt) - 1 :]
    for token, one, wanted in zip(generated, sequence.logprobs, known[:-1], strict=True):
        assert one.chosen == pytest.approx(float(wanted[token]), abs=2e-4)
        top = wanted.topk(20).values.tolist()
        assert [p for _, p in one.top] == pytest.approx(top, abs=2e-4)


def test_seeds_are_unaffected(qwen3: Checkpoint, open_engine: OpenEngine) -> None:
    """Asking for logprobs, or for penalties that are off, draws the same tokens."""
    prompt = prompts(16)[6]
    kinds = [
        Sampling(1.0, seed=4),
        Sampling(1.0, seed=4, logprobs=5),
        Sampling(1.0, seed=4, adjustment=Adjustment()),
    ]
    driver = Driver(open_engine(qwen3))
    found = driver.run([driver.add(prompt, 16, sampling) for sampling in kinds])
    assert found[0] == found[1] == found[2]
