"""Picks the device that a model runs on, and says why."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pie_backend.base import BackendError
from pie_backend.batch import BackendConfig
from pie_backend.engine.devices import facts
from pie_backend.engine.devices.base import Device
from pie_backend.engine.devices.cpu import CpuDevice
from pie_backend.engine.devices.cuda import CudaDevice
from pie_backend.engine.devices.metal import MetalDevice


@dataclass(frozen=True, slots=True)
class Chosen:
    device: Device
    why: str
    """Empty where the configuration names it."""


def choose_device(config: BackendConfig) -> Chosen:
    """Raises: BackendError: what the configuration names cannot be had."""
    if config.tensor_parallel > 1:
        return _for_ranks(config)
    match config.device:
        case "cpu":
            return Chosen(CpuDevice(), "")
        case "cuda":
            problem = cuda_problem(config, facts.look())
            if problem is not None:
                raise BackendError(f"backend.device=cuda: {problem}")
            return Chosen(CudaDevice(), "")
        case "metal":
            if not torch.backends.mps.is_available():
                raise BackendError("backend.device=metal: torch sees no Apple GPU here")
            return Chosen(MetalDevice(), "")
        case "auto":
            return _best(config)
    raise BackendError(f"device {config.device!r} is unknown; supported: auto, cpu, cuda, metal")


def _for_ranks(config: BackendConfig) -> Chosen:
    if config.device not in ("auto", "cpu"):
        raise BackendError(
            f"backend.tensor_parallel={config.tensor_parallel} divides models among CPUs only, so "
            f"far: backend.device={config.device} takes backend.tensor_parallel=1"
        )
    why = "auto: ranks run on CPUs only, so far" if config.device == "auto" else ""
    return Chosen(CpuDevice(config.tensor_parallel), why)


def cuda_problem(config: BackendConfig, found: facts.CudaFacts) -> facts.Problem | None:
    """The first thing that keeps the configuration from running on an NVIDIA GPU."""
    problem = facts.gpu_problem(found)
    if problem is not None or config.kernels == "torch" or config.dtype == "float32":
        return problem
    return facts.kernels_problem(found)


def _best(config: BackendConfig) -> Chosen:
    found = facts.look()
    problem = cuda_problem(config, found)
    if problem is None:
        return Chosen(CudaDevice(), "auto: an NVIDIA GPU and what it needs are there")
    if torch.backends.mps.is_available():
        why = "auto: models were never run on an Apple GPU; backend.device=metal tries it"
        return Chosen(CpuDevice(), why)
    # Without a driver there is probably no GPU, and nothing to mend.
    why = problem.what if found.driver_cuda is None else str(problem)
    return Chosen(CpuDevice(), f"auto: {why}")
