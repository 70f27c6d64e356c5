"""How a model is divided among ranks. Never imports torch."""

from __future__ import annotations

import math
from dataclasses import replace

from pie_backend.base import BackendError
from pie_backend.engine.config import DecoderConfig


def own_part(config: DecoderConfig, num_ranks: int) -> DecoderConfig:
    """What one of so many ranks computes.

    Raises:
        BackendError: the model cannot be divided so.
    """
    divided = (config.num_heads, config.num_kv_heads, config.intermediate_size)
    if any(number % num_ranks for number in divided):
        most = math.gcd(*divided)
        allowed = ", ".join(str(n) for n in range(1, most + 1) if most % n == 0)
        raise BackendError(
            f"backend.tensor_parallel={num_ranks} does not divide this model: "
            f"{config.num_heads} heads, {config.num_kv_heads} KV heads, "
            f"{config.intermediate_size} numbers inside an MLP; allowed: {allowed}"
        )
    heads, kv_heads, inner = (number // num_ranks for number in divided)
    return replace(config, num_heads=heads, num_kv_heads=kv_heads, intermediate_size=inner)
