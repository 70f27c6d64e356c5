"""Kernels that cannot be had are told with their reason, and models run without them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pie_backend.base import BackendError
from pie_backend.engine.architectures import read_config
from pie_backend.engine.engine import Engine
from pie_backend.engine.ops.choose import choose_operators
from pie_backend.engine.ops.native import build
from pie_backend.engine.ops.native.build import NoKernels
from pie_backend.model_dir import resolve
from support.checkpoints import Checkpoint, prompts
from support.driver import Driver

OpenEngine = Callable[..., Engine]


@pytest.fixture(autouse=True)
def able(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A processor that could, and an empty cache."""
    monkeypatch.setattr(build, "_processor", lambda: "flags: avx2 fma")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PIE_STATE_DIR", raising=False)


def compiler(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "gcc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_an_older_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_processor", lambda: "flags: avx")
    with pytest.raises(NoKernels, match=r"no AVX2$"):
        build.load()


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoKernels, match="no C compiler; install gcc"):
        build.load()


def test_a_compiler_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its own complaint is shown, and nothing half-made stays."""
    compiler(tmp_path, "echo 'rows.c:1:2: error: no such thing' >&2; exit 1", monkeypatch)
    with pytest.raises(NoKernels, match="error: no such thing; install gcc"):
        build.load()
    assert [] == list((tmp_path / "cache/pie/kernels").iterdir())


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(NoKernels, match=r"Not a directory.*set XDG_CACHE_HOME"):
        build.load()
    monkeypatch.setenv("PIE_STATE_DIR", str(tmp_path / "state"))
    assert build._cache_dir() == tmp_path / "state/kernels"


def test_a_library_that_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the compiler left is no library."""
    script = 'while [ "$1" != -o ]; do [ $# = 0 ] && exit; shift; done; echo x > "$2"'
    compiler(tmp_path, script, monkeypatch)
    with pytest.raises(NoKernels, match="cannot be made or loaded"):
        build.load()


def test_two_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both compile, and both load what one of them has made."""
    code = "from pie_backend.engine.ops.native.library import Kernels; print(Kernels().name)"
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in running]
    for process, (out, err) in zip(running, outputs, strict=True):
        if "NoKernels" in err:
            pytest.skip(err.strip().splitlines()[-1])
        assert (0, True) == (process.returncode, out.startswith("native"))
    assert 1 == len(list((tmp_path / "cache/pie/kernels").iterdir()))


def test_a_model_runs_without_them(
    qwen3: Checkpoint, open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` says why it takes torch; `native` refuses."""
    monkeypatch.setattr(build, "_processor", lambda: "flags: avx")
    engine = open_engine(qwen3, dtype="bfloat16")
    assert "torch: the processor has no AVX2" == engine.info.kernels
    driver = Driver(engine)
    assert 5 == len(driver.run([driver.add(prompts(4)[0], 5)])[0])
    with pytest.raises(BackendError, match="kernels=native: the processor has no AVX2"):
        open_engine(qwen3, dtype="bfloat16", kernels="native")


def test_what_they_do_not_compute(qwen3: Checkpoint, open_engine: OpenEngine) -> None:
    """Other dtypes, and sizes that no kernel takes."""
    assert "torch: the kernels compute in bfloat16" == open_engine(qwen3).info.kernels
    decoder_config = replace(read_config(resolve(qwen3.path)), head_dim=24)
    with pytest.raises(BackendError, match="a multiple of 32; this model's have 24"):
        choose_operators("native", decoder_config, torch.bfloat16)
    with pytest.raises(
        BackendError, match="weights=int8 needs native kernels: the kernels compute"
    ):
        choose_operators("auto", decoder_config, torch.float32, "int8")
    with pytest.raises(BackendError, match="weights 'int4' are unknown; supported: auto, int8"):
        choose_operators("auto", decoder_config, torch.bfloat16, "int4")
    with pytest.raises(BackendError, match="'fast' are unknown; supported: auto, native, torch"):
        choose_operators("fast", decoder_config, torch.bfloat16)
