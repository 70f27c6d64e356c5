"""What this machine has for models on an NVIDIA GPU, and what is missing.

Importing this needs no torch; looking does.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

FLASHINFER = "0.6.4"
"""The version that the kernels' calls were written for."""
KERNEL_CAPABILITY = (8, 0)
"""Ampere: the first that computes in bfloat16."""
_INSTALL = 'pip install "pie-backend[cuda]"'
_NO_KERNELS = "or set backend.kernels=torch, which is slower"


class Problem(msgspec.Struct, frozen=True):
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what}; {self.fix}"


class CudaFacts(msgspec.Struct, frozen=True):
    torch: str
    """Its version."""
    torch_cuda: str | None = None
    """The version of CUDA that it was built for; None: a build without."""
    driver_cuda: tuple[int, int] | None = None
    """The newest CUDA that the driver can serve; None: there is no driver."""
    gpu: str | None = None
    """The name of the first one; None: torch sees none."""
    trouble: str = ""
    """What torch said when it looked for it."""
    capability: tuple[int, int] = (0, 0)
    total_bytes: int = 0
    flashinfer: str | None = None
    nvcc: str | None = None
    ninja: str | None = None
    has_built_kernels: bool = False
    """FlashInfer's compiled kernels are installed as a package, so that no compiler is needed."""


def look() -> CudaFacts:
    import torch

    found = CudaFacts(
        torch=str(torch.__version__),  # a class of its own otherwise
        torch_cuda=torch.version.cuda,
        driver_cuda=_driver_cuda(),
        flashinfer=_version("flashinfer-python"),
        nvcc=_found(find_nvcc()),
        ninja=_found(find_ninja()),
        has_built_kernels=importlib.util.find_spec("flashinfer_jit_cache") is not None,
    )
    if found.torch_cuda is None or found.driver_cuda is None:
        return found
    try:
        device = torch.cuda.get_device_properties(0)
    except (RuntimeError, AssertionError) as error:
        return msgspec.structs.replace(found, trouble=str(error).splitlines()[0])
    return msgspec.structs.replace(
        found,
        gpu=device.name,
        capability=(device.major, device.minor),
        total_bytes=device.total_memory,
    )


def gpu_problem(facts: CudaFacts) -> Problem | None:
    """Why torch can compute nothing on a GPU here."""
    if facts.driver_cuda is None:
        return Problem("no NVIDIA driver is loaded", "install one, or set backend.device=cpu")
    if facts.torch_cuda is None:
        what = f"torch {facts.torch} is a build without CUDA"
        return Problem(what, "install one with CUDA 13: pip install --force-reinstall torch")
    wanted = int(facts.torch_cuda.split(".")[0])
    if facts.driver_cuda[0] < wanted:
        newest = ".".join(map(str, facts.driver_cuda))
        what = f"the NVIDIA driver serves CUDA {newest}, torch {facts.torch} is for {wanted}"
        return Problem(what, "install a newer driver (CUDA 13 takes 580 or newer)")
    if facts.gpu is None:
        what = f"torch sees no GPU: {facts.trouble or 'none is there'}"
        return Problem(what, "look at nvidia-smi and CUDA_VISIBLE_DEVICES")
    return None


def kernels_problem(facts: CudaFacts) -> Problem | None:
    """Why FlashInfer's kernels cannot be had, on a GPU that torch can use."""
    if facts.capability < KERNEL_CAPABILITY:
        found, least = (f"{one[0]}.{one[1]}" for one in (facts.capability, KERNEL_CAPABILITY))
        what = f"{facts.gpu} has compute capability {found}, the kernels take {least} or newer"
        return Problem(what, "set backend.kernels=torch")
    if facts.flashinfer is None:
        return Problem("flashinfer-python is missing", f"{_INSTALL}, {_NO_KERNELS}")
    if facts.flashinfer != FLASHINFER:
        what = f"flashinfer-python {facts.flashinfer} is installed, {FLASHINFER} is needed"
        return Problem(what, f"{_INSTALL}, {_NO_KERNELS}")
    if facts.has_built_kernels:
        return None
    if facts.nvcc is None:
        what = "the kernels are compiled when they are first used, and there is no nvcc"
        fix = "install NVIDIA's CUDA toolkit 13 and set CUDA_HOME to its folder"
        return Problem(what, f"{fix}, {_NO_KERNELS}")
    if facts.ninja is None:
        what = "the kernels are compiled when they are first used, and there is no ninja"
        return Problem(what, f"pip install ninja, {_NO_KERNELS}")
    return None


def find_nvcc() -> Path | None:
    """Of a whole toolkit: a script elsewhere on the path knows not where the headers are."""
    on_path = shutil.which("nvcc")
    homes = [os.environ.get("CUDA_HOME"), on_path and str(Path(on_path).resolve().parents[1])]
    for home in (*filter(None, homes), "/usr/local/cuda"):
        if (Path(home) / "bin/nvcc").exists() and (Path(home) / "include/cuda_runtime.h").exists():
            return Path(home) / "bin/nvcc"
    return None


def find_ninja() -> Path | None:
    """Also where the package puts it, which need not be on the path of a service."""
    if (on_path := shutil.which("ninja")) is not None:
        return Path(on_path)
    beside_python = Path(sys.executable).parent / "ninja"
    return beside_python if beside_python.exists() else None


def _found(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _driver_cuda() -> tuple[int, int] | None:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int(0)
    if driver.cuDriverGetVersion(ctypes.byref(number)) != 0 or number.value == 0:
        return None
    return number.value // 1000, number.value % 1000 // 10
