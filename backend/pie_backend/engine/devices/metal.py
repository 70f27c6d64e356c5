"""An Apple GPU through torch's operators. Nobody has run it yet: `auto` does not pick it."""

from __future__ import annotations

import torch

from pie_backend.base import BackendError
from pie_backend.batch import BackendConfig
from pie_backend.engine import memory
from pie_backend.engine.config import DecoderConfig
from pie_backend.engine.ops.base import Operators
from pie_backend.engine.ops.torch_ops import TorchOperators
from pie_backend.engine.weights import Checkpoint

_SHARE = 0.25


class MetalDevice:
    """Implements `Device`. Memory is the host's; there is no float64, so draws are made there."""

    name = "metal (Apple GPU)"
    compiles_late = True
    place = torch.device("mps")
    draws_on = torch.device("cpu")

    def empty(self, size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(size, dtype=dtype, device=self.place)

    def empty_host(self, size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(size, dtype=dtype)

    def free_bytes(self) -> int:
        usable = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return max(0, min(usable, memory.available_bytes()))

    def room_for_pages(self) -> int:
        return int(self.free_bytes() * _SHARE)

    def check_pages(self, num_pages: int, num_host_pages: int, page_bytes: int) -> None:
        what = f"backend.kv_pages + backend.host_pages: {num_pages} + {num_host_pages}"
        memory.check_fits(what, num_pages + num_host_pages, page_bytes, self.free_bytes())

    def prepare(self, num_threads: int | None) -> None:
        """Nothing to set."""

    def check(self, model: DecoderConfig, config: BackendConfig, weights: Checkpoint) -> None:
        num_bytes, free_bytes = weights.num_bytes(), self.free_bytes()
        if num_bytes > free_bytes:
            raise BackendError(
                f"the weights take {num_bytes} bytes, the GPU has {free_bytes} left; "
                "free some, or take a smaller model"
            )

    def operators(
        self, model: DecoderConfig, dtype: torch.dtype, config: BackendConfig
    ) -> Operators:
        if config.kernels == "native" or config.weights == "int8":
            raise BackendError(
                "backend.device=metal computes with torch alone: set backend.kernels and "
                "backend.weights to auto"
            )
        return TorchOperators("torch on an Apple GPU, never run by us")

    def finish(self) -> None:
        torch.mps.synchronize()
