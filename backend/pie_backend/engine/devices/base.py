"""The seam between the engine and the machine that it runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from pie_backend.batch import BackendConfig
    from pie_backend.engine.config import DecoderConfig
    from pie_backend.engine.ops.base import Operators
    from pie_backend.engine.weights import Checkpoint


class Memory(Protocol):
    """What tensors live on, and what they may take of it."""

    @property
    def place(self) -> torch.device:
        """What torch calls it."""
        ...

    def empty(self, size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Zeros that stay as long as the engine."""
        ...

    def empty_host(self, size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Zeros in host memory, from and to which the device copies fast."""
        ...

    def free_bytes(self) -> int:
        """That this process may still take."""
        ...


class Device(Memory, Protocol):
    @property
    def name(self) -> str:
        """For people, such as `cuda (NVIDIA H100 80GB HBM3)`."""
        ...

    @property
    def draws_on(self) -> torch.device:
        """Where logits are drawn from: what computes in float64."""
        ...

    @property
    def compiles_late(self) -> bool:
        """Kernels are compiled when they are first used, which should not be a request's."""
        ...

    def prepare(self, num_threads: int | None) -> None:
        """Settings of this process, before anything is loaded."""
        ...

    def check(self, model: DecoderConfig, config: BackendConfig, weights: Checkpoint) -> None:
        """What can be known before weights are read.

        Raises: BackendError."""
        ...

    def operators(
        self, model: DecoderConfig, dtype: torch.dtype, config: BackendConfig
    ) -> Operators:
        """Raises: BackendError."""
        ...

    def check_pages(self, num_pages: int, num_host_pages: int, page_bytes: int) -> None:
        """Raises: BackendError: they do not fit."""
        ...

    def room_for_pages(self) -> int:
        """Bytes that the pool may take when nobody says how many, after the weights."""
        ...

    def finish(self) -> None:
        """Waits until all that was asked for is done; a failure is raised here."""
        ...
