"""Samples to tensors: encode, sort by length, cut into small batches that are padded little."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.sample import Sample

IGNORED = -100
PADDING_STEP = 8  # lengths are rounded up to it, so that few shapes occur


@dataclass(frozen=True)
class Encoded:
    tokens: list[int]
    learnt: list[bool]  # of each token


@dataclass(frozen=True)
class MicroBatch:
    tokens: Tensor  # int64 [B, T], inputs
    targets: Tensor  # int64 [B, T], IGNORED where nothing is learnt
    weights: Tensor  # float32 [B], of each sample's answer tokens


class Encoder:
    """Encodes segments one by one, as inference does with prompts, and remembers frequent ones."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}

    def encode(self, sample: Sample) -> Encoded:
        tokens: list[int] = []
        learnt: list[bool] = []
        for text, is_learnt in sample.segments():
            piece = self._piece(text)
            tokens += piece
            learnt += [is_learnt] * len(piece)
        return Encoded(tokens, learnt)

    def _piece(self, text: str) -> list[int]:
        if text in self._known:
            return self._known[text]
        tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        if len(self._known) < 100_000:
            self._known[text] = tokens
        return tokens


def steps(
    samples: Iterator[Sample], encoder: Encoder, samples_per_step: int, max_tokens: int
) -> Iterator[list[MicroBatch]]:
    """Each step's samples, sorted by length and cut so that no micro batch exceeds `max_tokens`."""
    while True:
        encoded = [encoder.encode(sample) for sample in islice(samples, samples_per_step)]
        encoded.sort(key=lambda item: len(item.tokens))
        yield [_tensors(group) for group in _cut(encoded, max_tokens)]


def _cut(encoded: list[Encoded], max_tokens: int) -> Iterator[list[Encoded]]:
    """Cut where the batch is full, or where the lengths have doubled."""
    group: list[Encoded] = []
    for item in encoded:
        too_large = (len(group) + 1) * len(item.tokens) > max_tokens
        if group and (too_large or len(item.tokens) > max(24, 2 * len(group[0].tokens))):
            yield group
            group = []
        group.append(item)
    yield group


def _tensors(group: list[Encoded]) -> MicroBatch:
    longest = max(len(item.tokens) for item in group) - 1
    length = -(-longest // PADDING_STEP) * PADDING_STEP
    tokens = torch.zeros(len(group), length, dtype=torch.int64)
    targets = torch.full((len(group), length), IGNORED)
    for row, item in enumerate(group):
        ids = torch.tensor(item.tokens)
        learnt = torch.tensor(item.learnt)[1:]
        tokens[row, : len(ids) - 1] = ids[:-1]
        targets[row, : len(ids) - 1] = torch.where(learnt, ids[1:], IGNORED)
    return MicroBatch(tokens, targets, _weights(targets))


def _weights(targets: Tensor) -> Tensor:
    """Between one vote per sample and one per token: a long story must not drown short sums."""
    return (targets != IGNORED).sum(1).clamp(min=1).float().rsqrt()
