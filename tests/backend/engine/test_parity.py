"""Greedy tokens in float32 equal those of transformers, however the work is cut and batched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pie_backend.batch import Batch, Row, Sample, Sampling
from pie_backend.engine.engine import Engine
from support.checkpoints import Checkpoint, prompts
from support.driver import Driver
from support.parity import assert_same

OpenEngine = Callable[..., Engine]

# A tie is allowed and reported.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default:tie at token:UserWarning"),
]


def test_reference_says_something(checkpoint: Checkpoint) -> None:
    """The reference generates at least 32 distinct tokens in 64, or parity would prove little."""
    checkpoint.generate_all(prompts(16))
    generated = [checkpoint.generate(prompt) for prompt in prompts(16)]
    assert sum(len(set(tokens)) for tokens in generated) / len(generated) >= 32


def test_alone(checkpoint: Checkpoint, open_engine: OpenEngine) -> None:
    """A prompt of one token and one of many pages, each alone in its batches."""
    driver = Driver(open_engine(checkpoint))
    for prompt in (prompts(16)[0], prompts(16)[-1]):
        [generated] = driver.run([driver.add(prompt)])
        assert_same(checkpoint, prompt, generated)


def test_in_a_batch(checkpoint: Checkpoint, open_engine: OpenEngine) -> None:
    """Sixteen prompts of different lengths together, whole prompts first, shuffled pages."""
    driver = Driver(open_engine(checkpoint))
    results = driver.run([driver.add(prompt) for prompt in prompts(16)])
    for prompt, generated in zip(prompts(16), results, strict=True):
        assert_same(checkpoint, prompt, generated)


@pytest.mark.parametrize(("chunk", "page_size"), [(1, 16), (7, 16), (16, 4), (33, 1)])
def test_chunked_prefill(
    qwen3: Checkpoint, open_engine: OpenEngine, chunk: int, page_size: int
) -> None:
    """Prompts in chunks, so that prefill of one row and decoding of another share batches."""
    driver = Driver(open_engine(qwen3, page_size=page_size, kv_pages=6400 // page_size), seed=chunk)
    chosen = prompts(16)[::3]
    results = driver.run([driver.add(prompt, 24) for prompt in chosen], chunk)
    for prompt, generated in zip(chosen, results, strict=True):
        assert_same(qwen3, prompt, generated)


def test_rows_enter_and_leave(qwen3: Checkpoint, open_engine: OpenEngine) -> None:
    """Continuous batching: every few steps a row leaves midway and another enters on its pages."""
    driver = Driver(open_engine(qwen3, kv_pages=80))
    waiting = prompts(16, seed=3)
    qwen3.generate_all(waiting)
    live = [driver.add(waiting.pop(), 24) for _ in range(6)]
    finished = []
    while live:
        driver.step(live, chunk=20)
        for sequence in [s for s in live if s.is_done or driver.random.random() < 0.02]:
            live.remove(sequence)
            driver.release(sequence)
            finished.append(sequence)
            if waiting:
                live.append(driver.add(waiting.pop(), 24))
    assert len(finished) == 16
    for sequence in finished:
        num_prompt_tokens = len(sequence.tokens) - len(sequence.generated)
        if sequence.generated:
            assert_same(qwen3, sequence.tokens[:num_prompt_tokens], sequence.generated)


def test_sampling_at_every_position(qwen3: Checkpoint, open_engine: OpenEngine) -> None:
    """A row may be cut anywhere: recomputing the tail of a context gives the same next token."""
    driver = Driver(open_engine(qwen3))
    prompt = prompts(16)[-1]
    expected = qwen3.generate(prompt, 1)
    sequence = driver.add(prompt, 1)
    driver.run([sequence])
    for start in (0, 1, 15, 16, 17, len(prompt) - 1):
        sequence.tokens, sequence.generated, sequence.computed = list(prompt), [], start
        assert driver.run([sequence]) == [expected]


def test_page_copies(qwen3: Checkpoint, open_engine: OpenEngine) -> None:
    """A context forked by copying its pages, in a chain, goes on like the original."""
    engine = open_engine(qwen3, kv_pages=20)
    prompt = prompts(16)[-2]
    engine.execute(Batch(0, [Row(prompt[:-1], 0, [3, 9, 4])]))
    copies = [(3, 11), (9, 12), (4, 13), (11, 1), (12, 2), (13, 0)]
    row = Row(prompt[-1:], len(prompt) - 1, [1, 2, 0], [Sample(0, Sampling())])
    assert engine.execute(Batch(1, [row], copies)).tokens == [qwen3.generate(prompt, 1)]


def test_reads_only_its_own_pages(checkpoint: Checkpoint, open_engine: OpenEngine) -> None:
    """With NaN in every page of the pool, rows still compute what they should."""
    engine = open_engine(checkpoint)
    assert engine._cache is not None
    with torch.inference_mode():
        engine._cache._pool.fill_(torch.nan)
    driver = Driver(engine)
    results = driver.run([driver.add(prompt, 20) for prompt in prompts(6)], chunk=25)
    for prompt, generated in zip(prompts(6), results, strict=True):
        assert_same(checkpoint, prompt, generated)


def test_sharded_checkpoint(qwen3: Checkpoint, open_engine: OpenEngine, tmp_path: Path) -> None:
    """A checkpoint in many files loads like one in a single file."""
    qwen3.model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    driver = Driver(open_engine(Checkpoint(tmp_path, qwen3.model)))
    prompt = prompts(16)[3]
    [generated] = driver.run([driver.add(prompt, 16)])
    assert_same(qwen3, prompt, generated)
