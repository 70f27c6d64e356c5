"""Penalties and biases: what changes logits before a token is drawn from them.

The order is that of transformers and the OpenAI definition: the repetition penalty first, then
presence and frequency, then the bias. All rows at once, and only at the places they name.
"""

from __future__ import annotations

from itertools import chain

import torch

from pie_backend.batch import FORCING_BIAS, Adjustment, Sample, SeenTokens

_INT_BYTES = 4


def adjust(logits: torch.Tensor, samples: list[Sample]) -> torch.Tensor:
    """logits [S, vocab] -> the same or, when a sample asks, float32 ones; may overwrite them."""
    wanted = [sample.sampling.adjustment for sample in samples]
    penalised = [
        (i, adjustment, sample.seen)
        for i, (sample, adjustment) in enumerate(zip(samples, wanted, strict=True))
        if adjustment is not None
        and sample.seen is not None
        and (sample.seen.prompt or sample.seen.drawn)
    ]
    biased = [
        (i, adjustment.logit_bias)
        for i, adjustment in enumerate(wanted)
        if adjustment is not None and adjustment.logit_bias
    ]
    if penalised or biased:
        logits = logits.float().contiguous()
    if penalised:
        _penalise(logits, penalised)
    if biased:
        _bias(logits, biased)
    return logits


def _penalise(logits: torch.Tensor, asking: list[tuple[int, Adjustment, SeenTokens]]) -> None:
    """Contiguous logits [R, vocab], changed in place. What occurs twice is divided once, as both
    times the same is written, and reduced twice."""
    flat, size = logits.view(-1), logits.shape[1]
    repeated = [
        (i * size, asked.repetition_penalty, seen.prompt + seen.drawn) for i, asked, seen in asking
    ]
    if (found := _places(repeated, 1, flat.device)) is not None:
        at, by = found
        scores = flat[at]
        flat[at] = torch.where(scores < 0, scores * by, scores / by)
    present = [(i * size, asked.presence_penalty, seen.drawn) for i, asked, seen in asking]
    if (found := _places(present, 0, flat.device)) is not None:
        at, by = found
        flat[at] = flat[at] - by
    frequent = [(i * size, asked.frequency_penalty, seen.drawn) for i, asked, seen in asking]
    if (found := _places(frequent, 0, flat.device)) is not None:
        at, by = found
        flat.scatter_add_(0, at, -by)


def _places(
    wanted: list[tuple[int, float, bytes]], off: float, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Of (where the row begins, by how much, tokens): where each token is and by how much, both
    [N]; None: of none."""
    wanted = [one for one in wanted if one[1] != off and one[2]]
    if not wanted:
        return None
    sizes = torch.tensor([len(tokens) // _INT_BYTES for *_, tokens in wanted])
    begins = torch.tensor([begin for begin, *_ in wanted]).repeat_interleave(sizes)
    by = torch.tensor([much for _, much, _ in wanted]).repeat_interleave(sizes)
    # Of memory of its own, since torch wants what it may write.
    tokens = torch.frombuffer(bytearray(b"".join(one for *_, one in wanted)), dtype=torch.int32)
    return (begins + tokens).to(device), by.to(device)


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
