"""From logits to what a batch answers: observe them, adjust them, mask them, draw."""

from __future__ import annotations

import torch

from pie_backend.batch import Logprobs, Sample
from pie_backend.engine.adjust import adjust
from pie_backend.engine.logprobs import observe
from pie_backend.engine.masks import forbid
from pie_backend.engine.sampling import Greedy, draw_tokens


def draw(
    logits: torch.Tensor, samples: list[Sample], greedy: Greedy | None = None
) -> tuple[list[int], list[Logprobs | None]]:
    """logits [S, vocab], one row of logits for each sample; they may be overwritten. The second
    list is empty when no sample asks for log probabilities."""
    observer = observe(logits, [sample.sampling for sample in samples])
    logits = forbid(adjust(logits, samples), [sample.mask for sample in samples])
    tokens = draw_tokens(logits, samples, greedy)
    return tokens, [] if observer is None else observer.logprobs(tokens)
