"""Picks the operators that a model is computed with on this machine."""

from __future__ import annotations

import torch

from pie_backend.base import BackendError
from pie_backend.engine.config import DecoderConfig
from pie_backend.engine.ops.base import Operators
from pie_backend.engine.ops.native.build import NoKernels
from pie_backend.engine.ops.native.operators import NativeOperators
from pie_backend.engine.ops.torch_ops import TorchOperators


def choose_operators(
    wanted: str, config: DecoderConfig, dtype: torch.dtype, weights: str = "auto"
) -> Operators:
    """`wanted`: auto, native or torch; `weights`: auto or int8.

    Raises:
        BackendError: the wanted ones cannot be had; the message says why.
    """
    if wanted not in ("auto", "native", "torch"):
        raise BackendError(f"kernels {wanted!r} are unknown; supported: auto, native, torch")
    if weights not in ("auto", "int8"):
        raise BackendError(f"weights {weights!r} are unknown; supported: auto, int8")
    if wanted == "torch":
        if weights == "int8":
            raise BackendError("backend.weights=int8 needs native kernels: backend.kernels=torch")
        return TorchOperators()
    try:
        return NativeOperators(config, dtype, weights)
    except NoKernels as error:
        if weights == "int8":
            raise BackendError(f"backend.weights=int8 needs native kernels: {error}") from error
        if wanted == "native":
            raise BackendError(f"backend.kernels=native: {error}") from error
        return TorchOperators(f"torch: {error}")
