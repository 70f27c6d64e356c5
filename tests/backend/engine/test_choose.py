"""Which device a model runs on, and what is said when one cannot be had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace

from pie_backend.base import BackendError
from pie_backend.batch import BackendConfig
from pie_backend.engine.architectures.llama import read_config
from pie_backend.engine.config import DecoderConfig, Fields
from pie_backend.engine.devices import choose, facts
from pie_backend.engine.devices.cuda import CudaDevice, scratch_bytes, uses_kernels
from pie_backend.engine.devices.facts import CudaFacts
from pie_backend.engine.ops.flashinfer.operators import complaint

WHOLE = CudaFacts(
    torch="2.13.0+cu130",
    torch_cuda="13.0",
    driver_cuda=(13, 0),
    gpu="NVIDIA H100 80GB HBM3",
    capability=(9, 0),
    total_bytes=80 << 30,
    flashinfer=facts.FLASHINFER,
    nvcc="/usr/local/cuda/bin/nvcc",
    ninja="/usr/bin/ninja",
)


def config(**changes: Any) -> BackendConfig:
    return BackendConfig(**{"name": "test", **changes})


@pytest.mark.parametrize(
    ("changes", "what", "fix"),
    [
        ({"driver_cuda": None}, "no NVIDIA driver", "backend.device=cpu"),
        ({"torch_cuda": None}, "a build without CUDA", "pip install"),
        ({"driver_cuda": (12, 8)}, "the NVIDIA driver serves CUDA 12.8", "580 or newer"),
        ({"gpu": None, "trouble": "out of luck"}, "sees no GPU: out of luck", "nvidia-smi"),
        ({"capability": (7, 5)}, "compute capability 7.5", "backend.kernels=torch"),
        ({"flashinfer": None}, "flashinfer-python is missing", "pie-backend[cuda]"),
        ({"flashinfer": "0.7.2"}, "0.7.2 is installed, 0.6.4 is needed", "pie-backend[cuda]"),
        ({"nvcc": None}, "no nvcc", "CUDA_HOME"),
        ({"ninja": None}, "no ninja", "pip install ninja"),
    ],
)
def test_what_is_missing_is_named_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], what: str, fix: str
) -> None:
    """Asked for, it is an error; with `auto` the processor serves, and the status says why."""
    monkeypatch.setattr(facts, "look", lambda: replace(WHOLE, **changes))
    with pytest.raises(BackendError, match=r"^backend\.device=cuda: ") as caught:
        choose.choose_device(config(device="cuda"))
    assert what in str(caught.value)
    assert fix in str(caught.value)

    chosen = choose.choose_device(config(device="auto"))
    assert chosen.device.name == "cpu"
    assert chosen.why.startswith("auto: ")
    assert what in chosen.why


def test_what_is_not_needed_is_not_asked_for() -> None:
    """torch's operators need no kernels, and compiled ones no compiler."""
    bare = replace(WHOLE, flashinfer=None, nvcc=None, capability=(7, 5))
    assert choose.cuda_problem(config(kernels="torch"), bare) is None
    assert choose.cuda_problem(config(dtype="float32"), bare) is None
    assert choose.cuda_problem(config(), bare) is not None
    built = replace(WHOLE, nvcc=None, ninja=None, has_built_kernels=True)
    assert choose.cuda_problem(config(), built) is None


def test_a_gpu_is_picked_where_all_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """By `auto` and by name; only the first needs a reason."""
    monkeypatch.setattr(facts, "look", lambda: WHOLE)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: WHOLE.gpu)
    auto, asked = (choose.choose_device(config(device=name)) for name in ("auto", "cuda"))
    assert auto.device.name == asked.device.name == "cuda (NVIDIA H100 80GB HBM3)"
    assert ("auto: an NVIDIA GPU and what it needs are there", "") == (auto.why, asked.why)


def test_an_apple_gpu_is_for_those_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has run it: `auto` says so and leaves it alone."""
    with pytest.raises(BackendError, match="torch sees no Apple GPU"):
        choose.choose_device(config(device="metal"))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    chosen = choose.choose_device(config())
    assert chosen.device.name == "cpu"
    assert "never run on an Apple GPU; backend.device=metal" in chosen.why
    assert choose.choose_device(config(device="metal")).device.place == torch.device("mps")


def test_looking_tells_what_this_machine_has() -> None:
    """Whatever it is: versions are those that are imported."""
    found = facts.look()
    assert found.torch == torch.__version__
    assert found.torch_cuda == torch.version.cuda
    assert found.ninja is None or Path(found.ninja).exists()


def test_a_compiler_without_its_toolkit_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A script named nvcc does not know where the headers are; CUDA_HOME does."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvcc").write_text("#!/bin/sh\n")
    (tmp_path / "bin/nvcc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    assert facts.find_nvcc() != tmp_path / "bin/nvcc"
    (tmp_path / "include").mkdir()
    (tmp_path / "include/cuda_runtime.h").touch()
    assert facts.find_nvcc() == tmp_path / "bin/nvcc"


def model(**changes: Any) -> DecoderConfig:
    shape = {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    }
    return read_config(Fields({**shape, **changes}, "test"))


def test_heads_that_the_kernels_do_not_take() -> None:
    """Refused with those that they do."""
    assert complaint(model()) is None
    assert complaint(model(head_dim=64)) is None
    found = complaint(model(head_dim=96))
    assert found is not None
    assert "64, 128, 256" in found
    assert "96" in found


class Weights:
    dtype = torch.bfloat16

    def num_bytes(self) -> int:
        return 16 << 30


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], CudaDevice]:
    """With so many bytes free."""

    def make(free_bytes: int) -> CudaDevice:
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "GPU")
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free_bytes, 80 << 30))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 0)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 0)
        return CudaDevice()

    return make


def test_too_little_memory_is_told_before_loading(gpu: Callable[[int], CudaDevice]) -> None:
    """With what is wanted, what is there, and what to do."""
    gpu(24 << 30).check(model(), config(), Weights())  # type: ignore[arg-type]
    with pytest.raises(
        BackendError, match=r"weights take 17179869184 bytes .* \(GPU\) has 8589934592"
    ):
        gpu(8 << 30).check(model(), config(), Weights())  # type: ignore[arg-type]
    with pytest.raises(BackendError, match=r"backend\.kernels=torch"):
        gpu(24 << 30).check(model(head_dim=96), config(), Weights())  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="int8"):
        gpu(24 << 30).check(model(), config(weights="int8"), Weights())  # type: ignore[arg-type]


def test_pages_leave_room_for_a_batch(gpu: Callable[[int], CudaDevice]) -> None:
    """The pool gets what is free after the weights, but for what the largest batch takes."""
    device = gpu(24 << 30)
    device.check(model(), config(), Weights())  # type: ignore[arg-type]
    scratch = scratch_bytes(model(), config())
    assert device.room_for_pages() == (24 << 30) - scratch
    assert 1 << 30 < scratch < 3 << 30
    device.check_pages(10, 10, 1 << 20)
    with pytest.raises(BackendError, match=r"backend\.kv_pages, in the GPU's memory: 100000 pages"):
        device.check_pages(100_000, 0, 1 << 20)


def test_kernels_are_for_bfloat16() -> None:
    """`auto` takes torch for float32; who insists on kernels is told."""
    assert uses_kernels(torch.bfloat16, config())
    assert not uses_kernels(torch.float32, config())
    assert not uses_kernels(torch.bfloat16, config(kernels="torch"))
    with pytest.raises(BackendError, match="the kernels compute in bfloat16"):
        uses_kernels(torch.float32, config(kernels="native"))
