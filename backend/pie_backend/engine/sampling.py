"""Draws one token per sample: temperature, top-k, top-p, min-p, in the order of transformers.

Every filter is reduced to "keep logits above a cut, and so many of those equal to it, lowest ids
first". The draw then walks the vocabulary by id, so a row's token depends on its logits and its
random number alone, whatever else is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from pie_backend.batch import Sample, Sampling
from pie_backend.rng import uniform

# Filters rarely keep more; where they do, the whole vocabulary is sorted instead.
_CANDIDATES = 256
_BLOCK = 128


Greedy = Callable[[torch.Tensor], list[int]]
"""As `likeliest` below."""


def draw_tokens(
    logits: torch.Tensor, samples: list[Sample], greedy: Greedy | None = None
) -> list[int]:
    """logits [S, vocab], one row of logits for each sample."""
    greedy = greedy or likeliest
    wanted = [one.sampling for one in samples]
    warm = [i for i, sampling in enumerate(wanted) if sampling.temperature > 0]
    if not warm:
        return greedy(logits)
    tokens = greedy(logits) if len(warm) < len(samples) else [0] * len(samples)
    randoms = [uniform(wanted[i].seed, samples[i].draw) for i in warm]
    chosen = (
        logits if len(warm) == len(samples) else logits[torch.tensor(warm, device=logits.device)]
    )
    drawn = sample(chosen, [wanted[i] for i in warm], randoms)
    for i, token in zip(warm, drawn, strict=True):
        tokens[i] = token
    return tokens


def likeliest(logits: torch.Tensor) -> list[int]:
    """logits [R, vocab] -> the lowest id with the largest logit, row by row.

    First among blocks, then inside one: a plain maximum is vectorised, its position is not.
    """
    num_rows, vocab_size = logits.shape
    if vocab_size % _BLOCK:
        plain: list[int] = logits.max(-1).indices.tolist()
        return plain
    blocks = logits.view(num_rows, -1, _BLOCK)
    block = blocks.amax(-1).max(-1).indices  # [R]; the first one, as in the next line
    inside = blocks[torch.arange(num_rows, device=logits.device), block].max(-1).indices
    tokens: list[int] = (block * _BLOCK + inside).tolist()
    return tokens


def sample(logits: torch.Tensor, wanted: list[Sampling], randoms: list[float]) -> list[int]:
    """logits [R, vocab]; all temperatures are above zero; randoms in [0, 1)"""
    temperatures = _column([s.temperature for s in wanted], logits)
    scaled = logits.float()
    # Against the largest first: a tiny temperature must not overflow.
    scaled = (scaled - scaled.amax(-1, keepdim=True)) / temperatures
    weights = scaled.exp()  # [R, vocab], the likeliest token's is 1
    filtered = [i for i, s in enumerate(wanted) if s.top_k > 0 or s.top_p < 1 or s.min_p > 0]
    if filtered:
        index = torch.tensor(filtered, device=logits.device)
        weights[index] *= _keep(scaled[index], weights[index], [wanted[i] for i in filtered])
    return _pick(weights, randoms)


def _keep(scaled: torch.Tensor, weights: torch.Tensor, wanted: list[Sampling]) -> torch.Tensor:
    """scaled and its exponentials [R, vocab] -> bool [R, vocab]"""
    vocab_size = scaled.shape[-1]
    num_candidates = min(_CANDIDATES, vocab_size)
    totals = mass(weights)
    top = scaled.topk(num_candidates, sorted=True).values
    counts, is_enough = _num_kept(top, totals, wanted, vocab_size)
    if not is_enough:
        top = scaled.sort(descending=True).values
        counts, _ = _num_kept(top, totals, wanted, vocab_size)
    return largest(scaled, top.gather(-1, counts - 1), counts)


def largest(values: torch.Tensor, cut: torch.Tensor, counts: torch.Tensor | int) -> torch.Tensor:
    """bool [R, vocab]: the `counts` largest of each row, where `cut` [R, 1] is the smallest of
    them; among those equal to it the lowest ids."""
    above = values > cut
    equal = values == cut
    # Counted in int32: torch is ten times faster at it than in its default, int64.
    room = counts - above.sum(-1, keepdim=True, dtype=torch.int32)
    if bool((equal.sum(-1, keepdim=True, dtype=torch.int32) > room).any()):
        equal &= equal.cumsum(-1) <= room
    return above | equal


def mass(weights: torch.Tensor) -> torch.Tensor:
    """weights [R, vocab] -> float64 [R, 1]; blocks in float32 first, which is what is fast."""
    blocks = _blocks(weights).sum(-1)
    return blocks.sum(-1, keepdim=True, dtype=torch.float64)


def _blocks(weights: torch.Tensor) -> torch.Tensor:
    """[R, vocab] -> [R, blocks, _BLOCK], padded with zeros"""
    padding = -weights.shape[-1] % _BLOCK
    if padding:
        weights = torch.nn.functional.pad(weights, (0, padding))
    return weights.view(len(weights), -1, _BLOCK)


def _num_kept(
    top: torch.Tensor, totals: torch.Tensor, wanted: list[Sampling], vocab_size: int
) -> tuple[torch.Tensor, bool]:
    """How many of the largest logits each row keeps, int64 [R, 1], and whether `top` (descending)
    reaches far enough to tell."""
    num_candidates = top.shape[-1]
    top_k = _column([s.top_k or vocab_size for s in wanted], top).long().clamp(max=vocab_size)
    # transformers keeps every tie of the k-th; so do we.
    in_reach = top_k.clamp(max=num_candidates)
    counts = torch.where(
        top_k < vocab_size, (top >= top.gather(-1, in_reach - 1)).sum(-1, keepdim=True), top_k
    )
    ranks = torch.arange(num_candidates, device=top.device)
    masses = top.double().exp()
    # With top-k the rest is renormalised before top-p looks at it.
    kept_mass = (masses * (ranks < counts)).sum(-1, keepdim=True)
    kept_mass = torch.where(top_k < vocab_size, kept_mass, totals)
    before = masses.cumsum(-1) - masses
    limits = _column([s.top_p for s in wanted], top).double() * kept_mass
    nucleus = (before < limits).sum(-1, keepdim=True).clamp(min=1)
    has_top_p = _column([float(s.top_p < 1) for s in wanted], top) > 0
    counts = torch.where(has_top_p, torch.minimum(counts, nucleus), counts)
    min_p = _column([s.min_p for s in wanted], top).double()
    likely = (masses >= min_p).sum(-1, keepdim=True).clamp(min=1)
    counts = torch.where(min_p > 0, torch.minimum(counts, likely), counts)
    return counts, num_candidates == vocab_size or bool((counts < num_candidates).all())


def _pick(weights: torch.Tensor, randoms: list[float]) -> list[int]:
    """Inverts the distribution function of weights [R, vocab] in two steps, block then token."""
    blocks, device = _blocks(weights), weights.device
    num_rows, num_blocks, _ = blocks.shape
    ends = blocks.sum(-1, dtype=torch.float64).cumsum(-1)  # [R, blocks]
    goals = torch.tensor(randoms, dtype=torch.float64, device=device).unsqueeze(1) * ends[:, -1:]
    block = torch.searchsorted(ends, goals, right=True).clamp(max=num_blocks - 1)
    starts = torch.where(block > 0, ends.gather(-1, (block - 1).clamp(min=0)), 0.0)
    inside = blocks[torch.arange(num_rows, device=device), block[:, 0]].double()  # [R, _BLOCK]
    within = inside.cumsum(-1)
    place = torch.searchsorted(within, goals - starts, right=True)
    # Rounding may step past the end: then the last token of the block that has any weight.
    last = (inside > 0).long().mul(torch.arange(_BLOCK, device=device)).amax(-1, keepdim=True)
    picked: list[int] = (block * _BLOCK + torch.minimum(place, last)).squeeze(1).tolist()
    return picked


def _column(values: list[float] | list[int], beside: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device=beside.device).unsqueeze(1)
