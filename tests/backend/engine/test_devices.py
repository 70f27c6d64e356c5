"""The same engine on another device: what it computes there, and that nothing stays behind.

The device is pretended (`support.pretend_gpu`): values are real, and mixing places is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pie_backend.batch import (
    Adjustment,
    BackendConfig,
    Batch,
    BatchResult,
    Logprobs,
    PageFile,
    Probe,
    ProbeKind,
    Row,
    Sample,
    Sampling,
)
from pie_backend.engine.devices.cpu import CpuDevice
from pie_backend.engine.engine import Engine, build_on
from pie_backend.model_dir import resolve
from support.adapters import ATTENTION, MLP, write_adapter
from support.checkpoints import Checkpoint, prompts
from support.driver import Driver, counted
from support.parity import assert_same
from support.pretend_gpu import PretendGpu, pretending, with_flashinfer, with_torch

MAKERS = {"flashinfer": with_flashinfer, "torch": with_torch}
"""Of devices; the first computes by what FlashInfer's functions mean, in float64."""


@pytest.fixture(params=MAKERS)
def device(request: pytest.FixtureRequest) -> Iterator[PretendGpu]:
    with pretending():
        yield MAKERS[request.param]()


def build(device: CpuDevice, checkpoint: Checkpoint, **changes: object) -> Engine:
    settings: dict[str, object] = {"dtype": "float32", "kv_pages": 200, "page_size": 16}
    config = {"name": "test", "path": str(checkpoint.path), "num_threads": 1}
    full = BackendConfig(**config, **{**settings, **changes})  # type: ignore[arg-type]
    return build_on(device, full, resolve(full.path))


@pytest.mark.slow
@pytest.mark.filterwarnings("default:tie at token:UserWarning")
def test_greedy_tokens_are_those_of_transformers(
    device: PretendGpu, checkpoint: Checkpoint
) -> None:
    """On every architecture, in chunks, so that rows decode and prefill in one batch."""
    chosen = prompts(16)[::4]
    expected = [checkpoint.generate(prompt, 12) for prompt in chosen]
    driver = Driver(build(device, checkpoint))
    results = driver.run([driver.add(prompt, 12) for prompt in chosen], chunk=20)
    for prompt, generated, wanted in zip(chosen, results, expected, strict=True):
        if generated != wanted:
            assert_same(checkpoint, prompt, generated)
    # And one before all of them, in which every kernel was used.
    assert device.num_finished == driver.step_number + 1


@pytest.mark.slow
def test_every_question_is_answered_as_on_a_processor(
    device: PretendGpu, qwen3: Checkpoint
) -> None:
    """Draws, filters, penalties, biases, masks, log probabilities and probes, hidden and masked
    rows, copies, pages that move to the host and back: the same numbers."""
    expected = _ask(build(CpuDevice(), qwen3, host_pages=4))
    found = _ask(build(device, qwen3, host_pages=4))
    for theirs, mine in zip(expected, found, strict=True):
        assert theirs.tokens == mine.tokens
        assert _likeliest(theirs) == _likeliest(mine)
        assert _chosen(theirs) == pytest.approx(_chosen(mine), abs=1e-4)
        for left, right in zip(_probed(theirs), _probed(mine), strict=True):
            torch.testing.assert_close(left, right, atol=1e-3, rtol=1e-3)


def _logprobs(result: BatchResult) -> list[Logprobs]:
    return [one for row in result.logprobs for one in row if one is not None]


def _likeliest(result: BatchResult) -> list[list[int]]:
    return [[token for token, _ in one.top] for one in _logprobs(result)]


def _chosen(result: BatchResult) -> list[float]:
    return [one.chosen for one in _logprobs(result)]


def _probed(result: BatchResult) -> list[torch.Tensor]:
    return [
        torch.frombuffer(bytearray(probed.values), dtype=torch.float32)
        for row in result.probes
        for probed in row
    ]


def _ask(engine: Engine) -> list[BatchResult]:
    """Three batches that leave nothing out."""
    text = prompts(4, seed=9)[3]
    vocab = engine.info.vocab_size
    allowed = bytes([0b10110101]) * (vocab // 8)
    warm = Sampling(0.8, 40, 0.9, 0.02, seed=7, logprobs=3)
    adjusted = Sampling(
        1.1, seed=3, adjustment=Adjustment(1.3, 0.4, 0.2, {5: 2.0, 9: -100.0}), logprobs=0
    )
    counts = counted(text[:40], text[:7])
    first = [
        Row(text[:40], 0, [1, 2, 3], [Sample(39, warm, 2), Sample(20, adjusted, 5, counts)]),
        Row(text[:9], 0, [4], [Sample(8, Sampling(0.7, seed=1), mask=allowed)]),
        Row(text[:1], 0, [5], [Sample(0, Sampling())]),
    ]
    kinds: tuple[ProbeKind, ...] = ("distribution", "logits", "logprobs", "entropy", "hidden-state")
    probes = [Probe(0, kind, 4, [3, 8], None if kind == "logits" else allowed) for kind in kinds]
    second = [
        Row(text[40:41], 40, [1, 2, 6], [Sample(0, warm, 9)], probes, hidden=[(3, 20)]),
        Row(
            text[9:12],
            9,
            [4],
            [Sample(2, Sampling())],
            attention=[b"\xff\x03", b"\x0f\x04", b"\xff\x0f"],
        ),
        Row(text[1:2], 1, [5], [Sample(0, Sampling())]),
    ]
    batches = [
        Batch(1, first),
        Batch(2, second, copies=[(3, 6)]),
        Batch(3, [], evict=[(4, 1), (5, 0)], restore=[(0, 7), (1, 8)]),
        Batch(4, [Row(text[12:13], 12, [8], [Sample(0, Sampling())])]),
    ]
    return [engine.execute(batch) for batch in batches]


@pytest.mark.slow
def test_pages_go_to_files_and_back(device: PretendGpu, qwen3: Checkpoint, tmp_path: Path) -> None:
    """The same bytes as a processor writes, but for what the last bit of a sum makes of them."""
    engine = build(device, qwen3)
    tokens = prompts(4)[3][:32]
    path = str(tmp_path / "pages")
    engine.execute(Batch(1, [Row(tokens, 0, [1, 2])]))
    stored = engine.execute(Batch(2, [], store=PageFile(path, [1, 2], 0)))
    loaded = engine.execute(Batch(3, [], load=PageFile(path, [8, 9], 0)))
    assert (stored.file_failure, loaded.file_failure) == (None, None)
    row = Row([3], 32, [1, 2, 3], [Sample(0, Sampling())])
    other = Row([3], 32, [8, 9, 4], [Sample(0, Sampling())])
    assert len({tuple(t) for t in engine.execute(Batch(4, [row, other])).tokens}) == 1


@pytest.mark.slow
def test_adapters_are_computed_there(device: PretendGpu, qwen3: Checkpoint, tmp_path: Path) -> None:
    """With a row that has none between two that do, so that their tokens are not neighbours."""
    modules = [*ATTENTION, *MLP]
    merged = write_adapter(qwen3, tmp_path, r=4, lora_alpha=8, target_modules=modules)
    prompt = prompts(16)[3]
    expected = [merged.generate(prompt, 10), qwen3.generate(prompt, 10)]
    engine = build(device, qwen3)
    digest = engine.load_adapter(str(tmp_path)).digest
    driver = Driver(engine)
    chosen = [digest, None, digest]
    results = driver.run([driver.add(prompt, 10, adapter=one) for one in chosen])
    assert [expected[0], expected[1], expected[0]] == results


@pytest.mark.parametrize(("page_size", "kv_pages"), [(16, 1), (1, 4), (16, 40)])
def test_every_kernel_is_used_before_the_first_request(
    qwen3: Checkpoint, page_size: int, kv_pages: int
) -> None:
    """However small the pool; it is as good as new afterwards."""
    expected = [[qwen3.generate([3], 1)[0]]]
    with pretending():
        device = with_flashinfer()
        engine = build(device, qwen3, page_size=page_size, kv_pages=kv_pages)
        assert device.num_finished == 1
        row = Row([3], 0, [0], [Sample(0, Sampling())])
        assert engine.execute(Batch(1, [row])).tokens == expected
