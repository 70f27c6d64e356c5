"""Picks the operators that a model is computed with on this machine."""

from __future__ import annotations

import torch

from pie_backend.base import BackendError
from pie_backend.engine.config import DecoderConfig
from pie_backend.engine.ops.base import Operators
from pie_backend.engine.ops.native.build import NoKernels
from pie_backend.engine.ops.native.operators import NativeOperators
from pie_backend.engine.ops.torch_ops import TorchOperators


def choose_operators(wanted: str, config: DecoderConfig, dtype: torch.dtype) -> Operators:
    """`auto`, `native` or `torch`.

    Raises:
        BackendError: the wanted ones cannot be had; the message says why.
    """
    if wanted == "torch":
        return TorchOperators("torch")
    if wanted not in ("auto", "native"):
        raise BackendError(f"kernels {wanted!r} are unknown; supported: auto, native, torch")
    try:
        return NativeOperators(config, dtype)
    except NoKernels as error:
        if wanted == "native":
            raise BackendError(f"backend.kernels=native: {error}") from error
        return TorchOperators(f"torch: {error}")
