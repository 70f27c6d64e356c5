"""What the stages run on: a GPU, or a processor that rehearses with tiny shapes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import cast

import torch

from benchmarks.gpu import reference
from benchmarks.model import SMALL, Shape
from benchmarks.question import Unanswerable
from pie_backend.batch import BackendConfig
from pie_backend.engine.devices import facts
from pie_backend.engine.devices.base import Device
from pie_backend.engine.devices.cpu import CpuDevice
from pie_backend.engine.devices.cuda import CudaDevice
from pie_backend.engine.ops.flashinfer.library import Kernels, load

TINY = Shape("qwen3-gpu-tiny", 64, 2, 2, 1, 64, 128, 1024)
ONE_B = Shape("shape-1b", 2048, 16, 32, 8, 64, 8192, 128256, 8192)
EIGHT_B = Shape("shape-8b", 4096, 32, 32, 8, 128, 14336, 128256, 8192)


@dataclass(frozen=True, slots=True)
class Setup:
    device: Device
    kernels: Kernels
    name: str
    """Of `backend.device`."""
    head_dims: tuple[int, ...]
    heads: tuple[tuple[int, int], ...]
    """Of queries and of keys: one, four and seven queries a key take different kernels."""
    shapes: tuple[Shape, ...]
    """Of random weights, for ratios."""
    served: Shape
    """By the daemon."""
    num_programs: int
    widths: tuple[int, ...]
    prompt_tokens: int
    new_tokens: int

    @property
    def place(self) -> torch.device:
        return self.device.place

    def seconds(self, work: Callable[[], object], times: int = 5) -> float:
        """The median, after one run that warms up."""
        samples = []
        for _ in range(times + 1):
            self.device.finish()
            begun = time.perf_counter()
            work()
            self.device.finish()
            samples.append(time.perf_counter() - begun)
        return median(samples[1:])


def set_up(name: str) -> Setup:
    """Raises: Unanswerable: there is no such device here."""
    if name == "cpu":
        return Setup(
            device=CpuDevice(),
            kernels=cast(Kernels, reference),
            name="cpu",
            head_dims=(16,),
            heads=((14, 2),),
            shapes=(TINY,),
            served=TINY,
            num_programs=8,
            widths=(1, 2),
            prompt_tokens=32,
            new_tokens=8,
        )
    found = facts.look()
    problem = facts.gpu_problem(found) or facts.kernels_problem(found)
    if problem is not None:
        raise Unanswerable(str(problem))
    device = CudaDevice()
    device.prepare(None)
    return Setup(
        device=device,
        kernels=load(),
        name="cuda",
        head_dims=(64, 128),
        heads=((8, 8), (8, 2), (14, 2)),
        shapes=(ONE_B, EIGHT_B),
        served=SMALL,
        num_programs=256,
        widths=(1, 8, 32, 128, 256),
        prompt_tokens=512,
        new_tokens=64,
    )


def config(setup: Setup, path: str, **changes: object) -> BackendConfig:
    settings: dict[str, object] = {"name": "gpu", "path": path, "device": setup.name}
    return BackendConfig(**{**settings, **changes})  # type: ignore[arg-type]
