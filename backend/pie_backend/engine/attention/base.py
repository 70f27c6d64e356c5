"""The seam between a model and what computes its attention."""

from __future__ import annotations

from typing import Protocol

import torch

from pie_backend.engine.ragged import RaggedBatch


class AttentionStep(Protocol):
    """Attention of one batch; everything that all layers share is already worked out."""

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Stores k, v [N, Hkv, D] and attends q [N, Hq, D] to what each token sees of its own row.

        Returns [N, Hq * D]. Reads only the pages in the row's table.
        """
        ...


class Attention(Protocol):
    def plan(self, batch: RaggedBatch) -> AttentionStep: ...
