"""Penalties and biases: what changes logits before a token is drawn from them.

The order is that of transformers and the OpenAI definition: the repetition penalty first, then
presence and frequency, then the bias. All rows at once, and only at the places they name.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import torch

from pie_backend.batch import FORCING_BIAS, Adjustment, Sample, TokenCounts

_INT_BYTES = 4


def adjust(logits: torch.Tensor, samples: list[Sample]) -> torch.Tensor:
    """logits [S, vocab] -> the same or, when a sample asks, float32 ones; may overwrite them."""
    wanted = [sample.sampling.adjustment for sample in samples]
    penalised = [
        (i, adjustment, sample.counts)
        for i, (sample, adjustment) in enumerate(zip(samples, wanted, strict=True))
        if adjustment is not None and sample.counts is not None and sample.counts.tokens
    ]
    biased = [
        (i, adjustment.logit_bias)
        for i, adjustment in enumerate(wanted)
        if adjustment is not None and adjustment.logit_bias
    ]
    if penalised or biased:
        logits = logits.float()
    if penalised:
        _penalise(logits, penalised)
    if biased:
        _bias(logits, biased)
    return logits


def _penalise(logits: torch.Tensor, asking: list[tuple[int, Adjustment, TokenCounts]]) -> None:
    """logits [R, vocab], changed in place; what is off for a row is a 1 or a 0 here"""
    place = logits.device
    lengths = torch.tensor([len(counts.tokens) // _INT_BYTES for _, _, counts in asking])
    rows = torch.tensor([i for i, _, _ in asking]).repeat_interleave(lengths).to(place)
    tokens = _ints(counts.tokens for _, _, counts in asking).long().to(place)
    times = _ints(counts.times for _, _, counts in asking).to(place)
    penalties = torch.tensor(
        [(a.repetition_penalty, a.presence_penalty, a.frequency_penalty) for _, a, _ in asking]
    )
    repetition, presence, frequency = penalties.repeat_interleave(lengths, 0).to(place).unbind(1)
    scores = logits[rows, tokens]
    scores = torch.where(scores < 0, scores * repetition, scores / repetition)
    logits[rows, tokens] = scores - frequency * times - presence * (times > 0)


def _bias(logits: torch.Tensor, asking: list[tuple[int, dict[int, float]]]) -> None:
    """logits [R, vocab], changed in place"""
    place = logits.device
    rows = torch.tensor([i for i, biases in asking for _ in biases], device=place)
    ids = list(chain.from_iterable(biases for _, biases in asking))
    tokens = torch.tensor(ids, device=place)
    values = list(chain.from_iterable(biases.values() for _, biases in asking))
    added = torch.tensor(values, device=place)
    scores = logits[rows, tokens] + added
    # At the ends the promise is absolute: no temperature and no distance of logits breaks it.
    scores[added <= -FORCING_BIAS] = -torch.inf
    forced = added >= FORCING_BIAS
    if bool(forced.any()):
        logits[rows[forced]] = -torch.inf
        scores[torch.isin(rows, rows[forced]) & ~forced] = -torch.inf
    logits[rows, tokens] = scores


def _ints(parts: Iterable[bytes]) -> torch.Tensor:
    """int32; of memory of its own, since torch wants what it may write"""
    return torch.frombuffer(bytearray(b"".join(parts)), dtype=torch.int32)
