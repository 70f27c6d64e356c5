"""Attention masks and positions, against transformers with the same 4D mask in one pass."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable

import pytest
import torch
import transformers

from pie_backend.base import BackendError
from pie_backend.batch import Batch, Probe, Row
from pie_backend.engine.engine import Engine
from support.checkpoints import VOCAB_SIZE, Checkpoint

OpenEngine = Callable[..., Engine]
LENGTH = 150
PAGES = [7, 3, 9, 1, 12, 5, 2, 14, 11, 4]


def random_tokens() -> list[int]:
    generator = random.Random(3)
    return [generator.randrange(VOCAB_SIZE) for _ in range(LENGTH)]


def random_mask(seed: int, *, ahead: bool) -> torch.Tensor:
    """bool [LENGTH, LENGTH], half of it set; every token sees itself or, ahead, another one."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(LENGTH, LENGTH, generator=generator) < 0.5
    if not ahead:
        mask = mask.tril()
    mask.fill_diagonal_(True)
    mask[40:60, 10:40] = False
    return mask


def packed(mask: torch.Tensor, start: int, end: int) -> list[bytes]:
    """Bit rows of tokens [start, end) over the context up to `end`."""
    numbers = [
        sum(1 << place for place, bit in enumerate(row) if bit)
        for row in mask[start:end, :end].tolist()
    ]
    return [number.to_bytes(-(-end // 8), "little") for number in numbers]


@torch.inference_mode()
def reference(
    checkpoint: Checkpoint, tokens: list[int], mask: torch.Tensor, positions: list[int]
) -> torch.Tensor:
    bias = torch.zeros(1, 1, *mask.shape).masked_fill(~mask, -torch.inf)
    logits: torch.Tensor = checkpoint.model(
        torch.tensor([tokens]), attention_mask=bias, position_ids=torch.tensor([positions])
    ).logits
    return logits[0]


def computed(
    engine: Engine, tokens: list[int], mask: torch.Tensor, positions: list[int], size: int
) -> torch.Tensor:
    """Logits of every token, in rows of so many, beside others that decode and prefill."""
    logits: list[float] = []
    for step, start in enumerate(range(0, LENGTH, size)):
        end = min(start + size, LENGTH)
        row = Row(
            tokens[start:end],
            start,
            PAGES,
            probes=[Probe(index, "logits") for index in range(end - start)],
            positions=positions[start:end],
            attention=packed(mask, start, end),
        )
        beside = [Row(tokens[step : step + 1], step, list(range(20, 30)))]
        if not step:
            beside.append(Row(tokens[:9], 0, [16]))
        result = engine.execute(Batch(step, [beside[0], row, *beside[1:]]))
        for probed in result.probes[1]:
            logits += array("f", probed.values)
    return torch.tensor(logits).view(LENGTH, -1)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "ahead"), [(1, False), (13, False), (150, False), (150, True)])
def test_logits_are_those_of_the_same_mask(
    checkpoint: Checkpoint, open_engine: OpenEngine, size: int, ahead: bool
) -> None:
    """On every architecture, one token at a time, in chunks and at once, seeing ahead as well."""
    tokens = random_tokens()
    positions = [min(place + place // 50, 170) for place in range(LENGTH)]
    mask = random_mask(7, ahead=ahead)

    found = computed(open_engine(checkpoint, kv_pages=32), tokens, mask, positions, size)

    expected = reference(checkpoint, tokens, mask, positions)
    torch.testing.assert_close(found, expected, atol=5e-4, rtol=1e-3)
    assert len(set(expected.argmax(-1).tolist())) > 20


@pytest.mark.slow
def test_bfloat16_stays_within_its_tolerance(qwen3: Checkpoint, open_engine: OpenEngine) -> None:
    """Against transformers in bfloat16, teacher-forced under a mask."""
    tokens = random_tokens()
    mask, positions = random_mask(7, ahead=False), list(range(LENGTH))
    engine = open_engine(qwen3, dtype="bfloat16", kv_pages=32)
    found = computed(engine, tokens, mask, positions, 13)
    model = transformers.AutoModelForCausalLM.from_pretrained(qwen3.path, dtype=torch.bfloat16)
    theirs = reference(Checkpoint(qwen3.path, _Bfloat16(model)), tokens, mask, positions).float()
    exact = reference(qwen3, tokens, mask, positions)

    error, reference_error = ((one - exact).abs().mean() for one in (found, theirs))
    assert error < 2 * reference_error, (error, reference_error)


class _Bfloat16:
    """Takes a float32 mask."""

    def __init__(self, model: transformers.PreTrainedModel) -> None:
        self._model = model

    def __call__(
        self, tokens: torch.Tensor, attention_mask: torch.Tensor, **rest: object
    ) -> object:
        return self._model(tokens, attention_mask=attention_mask.bfloat16(), **rest)


def test_masks_that_make_no_sense_are_refused(qwen3: Checkpoint, open_engine: OpenEngine) -> None:
    """With the row and what is wrong with it."""
    engine = open_engine(qwen3)
    cases = {
        "2 attention rows for 1 tokens": [b"\x01", b"\x01"],
        "2 bytes in attention row 0, not 1": [b"\x01\x00"],
        "sees nothing": [b"\x00"],
        "sees more than its context": [b"\x03"],
    }
    for message, attention in cases.items():
        with pytest.raises(BackendError, match=message):
            engine.execute(Batch(1, [Row([1], 0, [0], attention=attention)]))
