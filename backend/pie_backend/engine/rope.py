"""Rotary positions as one complex product over interleaved pairs."""

from __future__ import annotations

import math

import torch

from pie_backend.engine.config import Llama3Scaling, RopeConfig


def rotation_table(config: RopeConfig, head_dim: int, max_context: int) -> torch.Tensor:
    """complex64 [max_context, head_dim/2]: the unit rotation of each pair at each position."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    inverse_freqs = 1.0 / (config.theta**exponents)
    if config.scaling is not None:
        inverse_freqs = _scale_llama3(inverse_freqs, config.scaling)
    angles = torch.outer(torch.arange(max_context).float(), inverse_freqs)
    return torch.complex(angles.cos(), angles.sin())


def _scale_llama3(inverse_freqs: torch.Tensor, scaling: Llama3Scaling) -> torch.Tensor:
    wavelengths = 2 * math.pi / inverse_freqs
    turns = scaling.original_max_context / wavelengths
    span = scaling.high_freq_factor - scaling.low_freq_factor
    # 0: slow enough to stretch fully, 1: fast enough to keep.
    keep = ((turns - scaling.low_freq_factor) / span).clamp(0, 1)
    return (1 - keep) * inverse_freqs / scaling.factor + keep * inverse_freqs


def interleave(rows: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Reorders the rows of a projection (or norm) so that RoPE's pairs (i, i+d/2) are neighbours.

    Checkpoints keep the halves apart. A product of query and key does not see the order, as long
    as both have the same one.
    """
    heads = rows.view(-1, 2, head_dim // 2, *rows.shape[1:])
    return heads.transpose(1, 2).reshape(rows.shape)


def rotate(x: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
    """float32 x [N, H, D], complex64 rotations [N, 1, D/2] -> float32 [N, H, D]"""
    num_tokens, num_heads, head_dim = x.shape
    pairs = torch.view_as_complex(x.view(num_tokens, num_heads, head_dim // 2, 2))
    return torch.view_as_real(pairs * rotations).view(num_tokens, num_heads, head_dim)
