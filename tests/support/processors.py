"""Kernels of processors that are not here: computed by one that has AVX2, instruction by
instruction."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
from pathlib import Path

import pytest

from pie_backend.engine.ops.native import build
from pie_backend.engine.ops.native.library import Kernels
from support.guests import REPOSITORY

CACHE = REPOSITORY / ".cache" / "test-kernels"
WIDE = Path(__file__).parent / "wide"
KINDS = {"AVX-512": (), "AMX": ("-DWITH_TILES",)}
"""And the flags that each is compiled with."""
OWN = "own"


def own_kernels() -> str:
    """Their name; skips the test where there are none."""
    try:
        return Kernels().name
    except build.NoKernels as why:
        pytest.skip(str(why))


def use(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Whoever asks for kernels gets those of that kind; 20 s when they were never built."""
    name = own_kernels()
    if kind == OWN:
        return
    if kind in name:
        pytest.skip("this processor is one")
    CACHE.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(build, "_processor", lambda: f"flags: {' '.join(build._KINDS['avx512'])}")
    monkeypatch.setattr(build, "_FLAGS", _flags(kind))
    monkeypatch.setattr(build, "_cache_dir", lambda: CACHE)
    with (CACHE / f"{kind}.lock").open("w") as lock:  # several processes of tests
        fcntl.flock(lock, fcntl.LOCK_EX)
        build.load()


def _flags(kind: str) -> tuple[str, ...]:
    """The first folder of headers comes before the compiler's own."""
    found = importlib.util.find_spec("simde_py")
    assert found is not None
    assert found.submodule_search_locations is not None
    [package] = found.submodule_search_locations
    written = b"".join(path.read_bytes() for path in sorted(WIDE.glob("*.h")))
    version = importlib.metadata.version("simde-py").encode()
    return (
        *("-O1", "-mavx2", "-mfma", "-mf16c", "-fopenmp", "-fPIC", "-shared", "-fno-math-errno"),
        *("-Wno-psabi", f"-I{WIDE}", f"-I{package}/simde", *KINDS[kind]),
        f"-DMADE_OF={hashlib.sha256(written + version).hexdigest()}",
    )
