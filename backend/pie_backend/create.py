"""Picks and builds a backend. Nothing heavy is imported before it is chosen."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from pie_backend.base import Backend, BackendError, SinglePasses
from pie_backend.batch import BackendConfig
from pie_backend.bursts import Bursts
from pie_backend.lifeline import Lifeline

# Where each builder lives, `module:function`; each takes a BackendConfig, those of placements a
# Lifeline too.
KINDS = {
    "engine": "pie_backend.engine.build:build",
    "dummy": "pie_backend.dummy:DummyBackend",
}
PLACEMENTS = {
    "inline": "pie_backend.create:build_inline",
    "process": "pie_backend.process:ProcessBackend",
}


def create_backend(config: BackendConfig, lifeline: Lifeline | None = None) -> Backend:
    """Blocks until the model is loaded, or until the lifeline is cut.

    Raises:
        BackendError: it cannot be built; the message says what to do.
    """
    if config.page_size < 1:
        raise BackendError(f"page_size is {config.page_size}; expected at least 1")
    if config.kv_pages is not None and config.kv_pages < 1:
        raise BackendError(f"kv_pages is {config.kv_pages}; expected at least 1")
    if config.host_pages < 0:
        raise BackendError(f"host_pages is {config.host_pages}; expected at least 0")
    if config.tensor_parallel < 1:
        raise BackendError(f"tensor_parallel is {config.tensor_parallel}; expected at least 1")
    if config.tensor_parallel > 1 and config.kind == "dummy":
        raise BackendError(
            f"backend.tensor_parallel={config.tensor_parallel} needs a model to divide: "
            "backend.kind=dummy has none; leave it at 1"
        )
    backend: Backend = _builder("placement", PLACEMENTS, config.placement)(config, lifeline)
    return backend


def build_inline(config: BackendConfig, lifeline: Lifeline | None = None) -> Backend:
    """Builds the backend in this very process, where it does not die alone."""
    return Bursts(build_kind(config))


def build_kind(config: BackendConfig) -> SinglePasses:
    """What computes, one pass at a time."""
    backend: SinglePasses = _builder("kind", KINDS, config.kind)(config)
    return backend


def _builder(what: str, table: dict[str, str], key: str) -> Callable[..., Any]:
    if key not in table:
        raise BackendError(f"backend {what} {key!r} is unknown; expected one of {', '.join(table)}")
    module, _, name = table[key].partition(":")
    builder: Callable[..., Any] = getattr(import_module(module), name)
    return builder
