"""An NVIDIA GPU: FlashInfer's kernels in bfloat16, torch's operators for everything else."""

from __future__ import annotations

import torch

from pie_backend.base import BackendError
from pie_backend.batch import BackendConfig
from pie_backend.engine import memory
from pie_backend.engine.config import DecoderConfig
from pie_backend.engine.ops.base import Operators
from pie_backend.engine.ops.flashinfer.library import load
from pie_backend.engine.ops.flashinfer.operators import (
    WORKSPACE_BYTES,
    FlashInferOperators,
    complaint,
)
from pie_backend.engine.ops.torch_ops import TorchOperators
from pie_backend.engine.weights import Checkpoint

_CONTEXT_BYTES = 512 << 20
"""What CUDA's context, its libraries and torch's caching take beside tensors."""
_DRAWN_ROWS = 256
_BYTES_PER_LOGIT = 24
"""While tokens are drawn: the logits, in float32 as well, their weights, masks."""


class CudaDevice:
    """Implements `Device`: the first GPU that torch sees."""

    compiles_late = True

    def __init__(self) -> None:
        self.place = self.draws_on = torch.device("cuda", torch.cuda.current_device())
        self.name = f"cuda ({torch.cuda.get_device_name(self.place)})"
        self._scratch_bytes = 0

    def empty(self, size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(size, dtype=dtype, device=self.place)

    def empty_host(self, size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(size, dtype=dtype, pin_memory=True)

    def free_bytes(self) -> int:
        free, _ = torch.cuda.mem_get_info(self.place)
        kept = torch.cuda.memory_reserved(self.place) - torch.cuda.memory_allocated(self.place)
        return free + kept

    def room_for_pages(self) -> int:
        return self.free_bytes() - self._scratch_bytes

    def check_pages(self, num_pages: int, num_host_pages: int, page_bytes: int) -> None:
        what = f"backend.kv_pages, in the GPU's memory: {num_pages}"
        memory.check_fits(what, num_pages, page_bytes, self.room_for_pages())
        what = f"backend.host_pages, in the host's memory: {num_host_pages}"
        memory.check_fits(what, num_host_pages, page_bytes, memory.available_bytes())

    def prepare(self, num_threads: int | None) -> None:
        # The host prepares batches, a little at a time: more threads would only wait.
        torch.set_num_threads(num_threads or 1)

    def check(self, model: DecoderConfig, config: BackendConfig, weights: Checkpoint) -> None:
        if config.weights == "int8":
            raise BackendError(
                "backend.weights=int8 takes the native kernels of a processor, not a GPU"
            )
        if uses_kernels(weights.dtype, config) and (what := complaint(model)) is not None:
            raise BackendError(f"{what}; set backend.kernels=torch, which is slower")
        self._scratch_bytes = scratch_bytes(model, config)
        num_weight_bytes, free_bytes = weights.num_bytes(), self.free_bytes()
        if num_weight_bytes + self._scratch_bytes > free_bytes:
            raise BackendError(
                f"the weights take {num_weight_bytes} bytes and a batch {self._scratch_bytes}; "
                f"{self.name} has {free_bytes} left: end what uses it, lower "
                "scheduler.max_batch_tokens, take a smaller model, or set backend.device=cpu"
            )

    def operators(
        self, model: DecoderConfig, dtype: torch.dtype, config: BackendConfig
    ) -> Operators:
        if uses_kernels(dtype, config):
            return FlashInferOperators(load())
        asked = config.kernels == "torch"
        return TorchOperators("torch" if asked else "torch: the kernels take no float32")

    def finish(self) -> None:
        torch.cuda.synchronize(self.place)


def uses_kernels(dtype: torch.dtype, config: BackendConfig) -> bool:
    """Raises: BackendError."""
    if config.kernels == "native" and dtype != torch.bfloat16:
        raise BackendError("backend.kernels=native: the kernels compute in bfloat16")
    return config.kernels != "torch" and dtype == torch.bfloat16


def scratch_bytes(model: DecoderConfig, config: BackendConfig) -> int:
    """Beside weights and pages: what the largest batch takes while it is computed."""
    qkv = (model.num_heads + 2 * model.num_kv_heads) * model.head_dim
    per_token = 4 * (2 * model.intermediate_size + 4 * model.hidden_size + qkv)
    drawing = _DRAWN_ROWS * model.vocab_size * _BYTES_PER_LOGIT
    return WORKSPACE_BYTES + _CONTEXT_BYTES + config.max_batch_tokens * per_token + drawing
