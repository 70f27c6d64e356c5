"""From logits to what a batch answers: observe them, adjust them, draw."""

from __future__ import annotations

import torch

from pie_backend.batch import Logprobs, Row, Sampling
from pie_backend.engine.adjust import adjust
from pie_backend.engine.logprobs import observe
from pie_backend.engine.sampling import draw_tokens


def draw(logits: torch.Tensor, rows: list[Row]) -> tuple[list[int], list[Logprobs | None]]:
    """logits [R, vocab], one row of logits for each of the rows, which all want a sample; they may
    be overwritten. The second list is empty when no row asks for log probabilities."""
    observer = observe(logits, [row.sampling or Sampling() for row in rows])
    tokens = draw_tokens(adjust(logits, rows), rows)
    return tokens, [] if observer is None else observer.logprobs(tokens)
