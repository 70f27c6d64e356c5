"""The part of FlashInfer that is called, and how it is loaded."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any, Protocol, cast

import torch

from pie_backend.base import BackendError
from pie_backend.engine.devices.facts import find_ninja, find_nvcc

Cache = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of a layer, each [pages, H, page_size, D]."""


class Wrapper(Protocol):
    """One kernel: planned once a batch, run once a layer."""

    def plan(self, *args: Any, **kwargs: Any) -> None:
        """Index arrays are int32; on the host they cost no waiting for the device."""
        ...

    def run(self, q: torch.Tensor, paged_kv_cache: Cache) -> torch.Tensor:
        """[N, Hq, D] -> the same"""
        ...


class MakeWrapper(Protocol):
    def __call__(
        self, float_workspace_buffer: torch.Tensor, kv_layout: str, **options: Any
    ) -> Wrapper: ...


class Kernels(Protocol):
    """As FlashInfer names them."""

    __version__: str
    BatchPrefillWithPagedKVCacheWrapper: MakeWrapper
    BatchDecodeWithPagedKVCacheWrapper: MakeWrapper

    def append_paged_kv_cache(  # noqa: PLR0913 - FlashInfer's own
        self,
        append_key: torch.Tensor,
        append_value: torch.Tensor,
        batch_indices: torch.Tensor,
        positions: torch.Tensor,
        paged_kv_cache: Cache,
        kv_indices: torch.Tensor,
        kv_indptr: torch.Tensor,
        kv_last_page_len: torch.Tensor,
        kv_layout: str,
    ) -> None:
        """Writes [N, H, D] where they belong; int32 indices on the device."""
        ...

    def apply_rope_with_cos_sin_cache_inplace(
        self,
        positions: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        head_size: int,
        cos_sin_cache: torch.Tensor,
        is_neox: bool,
    ) -> None:
        """Rotates [N, heads * D]; float32 cosines beside sines [max_context, D]; `is_neox=False`:
        pairs are neighbours."""
        ...


def load() -> Kernels:
    """Raises: BackendError."""
    _help_the_compiler()
    try:
        return cast(Kernels, import_module("flashinfer"))
    except (ImportError, OSError, RuntimeError) as error:
        fix = 'pip install "pie-backend[cuda]", or set backend.kernels=torch'
        raise BackendError(f"FlashInfer cannot be imported: {error}; {fix}") from error


def _help_the_compiler() -> None:
    """FlashInfer looks for both by the environment alone, and a service has little of it."""
    nvcc, ninja = find_nvcc(), find_ninja()
    if nvcc is not None:
        os.environ.setdefault("CUDA_HOME", str(nvcc.parents[1]))
    if ninja is not None:
        os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), str(ninja.parent)])
