"""Picks the engine that a configuration asks for."""

from __future__ import annotations

from pie_backend.base import Backend
from pie_backend.batch import BackendConfig
from pie_backend.engine.engine import build_engine
from pie_backend.engine.parallel.engine import ParallelEngine


def build(config: BackendConfig) -> Backend:
    """Raises BackendError when the model, the device or the dtype cannot be had."""
    if config.tensor_parallel > 1:
        return ParallelEngine(config)
    return build_engine(config)
