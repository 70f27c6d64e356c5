"""Compiles the kernels beside this file, once for each processor, compiler and version of them."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

_KINDS = {"avx512": {"avx512f", "avx512bw", "avx512_bf16", "avx512_vnni"}, "avx2": {"avx2", "fma"}}
"""Folders of kernels beside this file and what a processor needs for them; the best one first."""
_FLAGS = ("-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-fno-math-errno")
_TIMEOUT_S = 120
_ELSEWHERE = "set XDG_CACHE_HOME to a folder that can be written"
_COMPILER = "install gcc 11 or newer"


class NoKernels(Exception):
    """They cannot be had here; the message says why."""

    def __init__(self, why: str, fix: str = "") -> None:
        super().__init__(why)
        self.fix = fix
        """What would help; empty where nothing does."""

    def __str__(self) -> str:
        why = super().__str__()
        return f"{why}; {self.fix}" if self.fix else why


def load() -> tuple[str, ctypes.CDLL]:
    """Which kind, and its functions. Raises: NoKernels."""
    kind = _kind()
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise NoKernels("there is no C compiler", "install gcc")
    path = _cache_dir() / f"{kind}-{_digest(compiler, kind)}.so"
    try:
        if not path.is_file():
            _compile(compiler, kind, path)
        return kind, ctypes.CDLL(str(path))
    except OSError as error:
        raise NoKernels(f"{path} cannot be made or loaded: {error}", _ELSEWHERE) from error


def _kind() -> str:
    able = set(_processor().split())
    for kind, needs in _KINDS.items():
        if needs <= able:
            return kind
    raise NoKernels("the processor has no AVX2")


def _processor() -> str:
    """What the kernel says the processor can do; empty where it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("flags")), "")


def _files(kind: str, pattern: str) -> list[Path]:
    """Those of the kind, and those that all kinds share."""
    here = Path(__file__).parent
    return sorted([*here.joinpath(kind).glob(pattern), *here.glob(pattern)])


def _cache_dir() -> Path:
    """The user's cache; a service that has none keeps them with its state."""
    places = [Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "pie"]
    if state := os.environ.get("PIE_STATE_DIR"):
        places.append(Path(state))
    failures: list[OSError] = []
    for place in places:
        try:
            (place / "kernels").mkdir(parents=True, exist_ok=True, mode=0o700)
            return place / "kernels"
        except OSError as error:
            failures.append(error)
    raise NoKernels(f"no folder for them: {failures[0]}", _ELSEWHERE)


def _digest(compiler: str, kind: str) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, timeout=_TIMEOUT_S)
    parts = [
        *(path.read_bytes() for path in _files(kind, "*.[ch]")),
        " ".join(_FLAGS).encode(),
        version.stdout,
        _processor().encode(),
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:24]


def _compile(compiler: str, kind: str, path: Path) -> None:
    """Under another name first: two processes may do so at once."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        sources = [str(source) for source in _files(kind, "*.c")]
        command = [compiler, *_FLAGS, *sources, "-o", str(made), "-lm"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise NoKernels(f"{compiler} did not end within {_TIMEOUT_S} s", _COMPILER) from error
        if done.returncode:
            complaint = next((s for s in done.stderr.splitlines() if "error" in s), done.stderr)
            raise NoKernels(f"{compiler} fails: {complaint.strip()}", _COMPILER)
        made.replace(path)
