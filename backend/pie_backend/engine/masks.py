"""Masks over the vocabulary: which tokens may be drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def forbid(logits: torch.Tensor, masks: Sequence[bytes | None]) -> torch.Tensor:
    """logits [S, vocab], -inf in place where a mask of `batch.Sample` has no bit."""
    asking = [i for i, mask in enumerate(masks) if mask is not None]
    if asking:
        allowed = unpack([mask for mask in masks if mask is not None], logits.shape[-1])
        allowed = allowed.to(logits.device)
        if len(asking) == len(logits):
            return logits.masked_fill_(~allowed, -torch.inf)
        index = torch.tensor(asking, device=logits.device)
        logits[index] = logits[index].masked_fill_(~allowed, -torch.inf)
    return logits


def unpack(masks: list[bytes], num_bits: int) -> torch.Tensor:
    """Packed bits, the lowest of a byte first -> bool [masks, num_bits]"""
    packed = np.frombuffer(b"".join(masks), np.uint8).reshape(len(masks), -1)
    bits = np.unpackbits(packed, axis=1, count=num_bits, bitorder="little")
    return torch.from_numpy(bits.view(np.bool_))
