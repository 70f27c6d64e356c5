"""The processor and its memory."""

from __future__ import annotations

import os

import torch

from pie_backend.batch import BackendConfig
from pie_backend.engine import huge_pages, memory
from pie_backend.engine.config import DecoderConfig
from pie_backend.engine.ops.base import Operators
from pie_backend.engine.ops.choose import choose_operators
from pie_backend.engine.weights import Checkpoint

_SHARE = 0.25


class CpuDevice:
    """Implements `Device`."""

    name = "cpu"
    compiles_late = False
    place = draws_on = torch.device("cpu")

    def __init__(self, num_ranks: int = 1) -> None:
        """`num_ranks`: processes that share cores and memory to compute one model."""
        self._num_ranks = num_ranks

    def empty(self, size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        # Filled now, so that the memory is there before the first request and not when it is late.
        return huge_pages.empty(size, dtype).fill_(0)

    def empty_host(self, size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(size, dtype=dtype).fill_(0)

    def free_bytes(self) -> int:
        return memory.available_bytes()

    def room_for_pages(self) -> int:
        return int(self.free_bytes() * _SHARE) // self._num_ranks

    def check_pages(self, num_pages: int, num_host_pages: int, page_bytes: int) -> None:
        what = f"backend.kv_pages + backend.host_pages: {num_pages} + {num_host_pages}"
        whole_bytes = page_bytes * self._num_ranks
        memory.check_fits(what, num_pages + num_host_pages, whole_bytes, self.free_bytes())

    def prepare(self, num_threads: int | None) -> None:
        _set_threads(num_threads, self._num_ranks)
        memory.keep_freed_memory()

    def check(self, model: DecoderConfig, config: BackendConfig, weights: Checkpoint) -> None:
        """Nothing: weights are paged in as they are read."""

    def operators(
        self, model: DecoderConfig, dtype: torch.dtype, config: BackendConfig
    ) -> Operators:
        return choose_operators(config.kernels, model, dtype, config.weights)

    def finish(self) -> None:
        """Nothing: every operation has ended when it returns."""


def _set_threads(num_threads: int | None, num_ranks: int) -> None:
    """An explicit number wins, then OMP_NUM_THREADS (which torch has read), then every core; ranks
    share them."""
    if num_threads is None and "OMP_NUM_THREADS" in os.environ:
        num_threads = torch.get_num_threads()
    can_ask = hasattr(os, "sched_getaffinity")
    num_cores = len(os.sched_getaffinity(0)) if can_ask else os.cpu_count() or 1
    torch.set_num_threads(max(1, (num_threads or num_cores) // num_ranks))
