"""Checks of what is installed."""

from __future__ import annotations

import importlib.util
import json
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires

from pie_daemon.cli.doctor.check import Result, ok, skip
from pie_daemon.cli.versions import installed

_REINSTALL = "pip install --force-reinstall"
_TORCH = "import torch; print(torch.__version__, torch.cuda.is_available())"
_IMPORT_TIMEOUT_S = 60.0
_KERNELS_TIMEOUT_S = 180.0
_GPU = """
import msgspec
from pie_backend.engine.devices.facts import gpu_problem, kernels_problem, look
found = look()
problem = gpu_problem(found) or kernels_problem(found)
print(msgspec.json.encode({"facts": found, "problem": problem}).decode())
"""
_KERNELS = """
import torch
from pie_backend.engine.ops.native.build import NoKernels
from pie_backend.engine.ops.native.library import Kernels
try:
    print("ok", Kernels().name, "", sep="\\t")
except NoKernels as missing:
    print("warn" if missing.fix else "skip", missing.args[0], missing.fix, sep="\\t")
"""


def python() -> Result:
    version = platform.python_version()
    if sys.maxsize <= 2**32:
        why = "wasmtime runs on 64-bit machines only"
        return Result("fail", f"Python {version}, 32-bit", why, "install a 64-bit Python")
    return ok(f"Python {version} on {platform.platform(terse=True)}", executable=sys.executable)


def torch() -> Result:
    """Imported in a process of its own: a broken build may take the process with it."""
    if importlib.util.find_spec("torch") is None:
        return Result("fail", "torch is missing", "no model can run", "pip install torch==2.13.0")
    command = [sys.executable, "-c", _TORCH]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_IMPORT_TIMEOUT_S)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Result(
            "fail", f"torch cannot be imported: {last}", "no model can run", f"{_REINSTALL} torch"
        )
    version, cuda = done.stdout.split()
    device = "with CUDA" if cuda == "True" else "without CUDA"
    return ok(f"torch {version}, {device}", version=version, cuda=cuda == "True")


def kernels() -> Result:
    """Compiled on the spot where they are not yet, in a process of its own like torch."""
    command = [sys.executable, "-c", _KERNELS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_KERNELS_TIMEOUT_S)
    if done.returncode != 0:
        return skip("torch cannot be imported")
    status, summary, fix = done.stdout.rstrip("\n").split("\t")
    if status == "ok":
        return ok(f"kernels for this processor: {summary}")
    if status == "skip":
        return skip(f"models are computed by torch: {summary}")
    return Result("warn", summary, "models in bfloat16 take about twice as long", fix)


def gpu(wanted: str) -> Result:
    """`wanted`: the configured device. What is missing is a fault only where a GPU is asked for."""
    command = [sys.executable, "-c", _GPU]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_IMPORT_TIMEOUT_S)
    if done.returncode != 0:
        return skip("torch cannot be imported")
    said = json.loads(done.stdout)
    found, problem = said["facts"], said["problem"]
    if problem is None:
        return ok(f"{found['gpu']}: FlashInfer {found['flashinfer']} computes on it", **found)
    if wanted == "cuda":
        why = "`pie serve` will not start with backend.device=cuda"
        return Result("fail", problem["what"], why, problem["fix"], found)
    if wanted == "auto" and found["driver_cuda"] is not None:
        why = "there is an NVIDIA driver, but models run on the processor"
        return Result("warn", problem["what"], why, problem["fix"], found)
    return skip(f"models run without an NVIDIA GPU: {problem['what']}")


def wasmtime() -> Result:
    return pinned("wasmtime", "programs trap in host calls with any other version")


def hydra() -> Result:
    return pinned("omegaconf", "the configuration cannot be composed")


def pinned(package: str, why: str, distribution: str = "pie-daemon") -> Result:
    """The installed version is one that this Pie was tested with."""
    wanted = _requirement(package, distribution)
    found = installed(package)
    if found is None:
        return Result("fail", f"{package} is missing", why, f'pip install "{package}{wanted}"')
    if not _satisfies(found, wanted):
        summary = f"{package} {found} is installed, {wanted} is needed"
        return Result("fail", summary, why, f'{_REINSTALL} "{package}{wanted}"')
    return ok(f"{package} {found}", version=found)


def _requirement(package: str, distribution: str) -> str:
    """The version specifier that the distribution declares; empty when there is none."""
    try:
        declared = requires(distribution) or []
    except PackageNotFoundError:
        return ""
    pattern = re.compile(rf"{re.escape(package)}\s*([=<>!~].*)?$", re.IGNORECASE)
    found = (pattern.fullmatch(line.split(";")[0].strip()) for line in declared)
    return next((match[1] or "" for match in found if match), "")


def _satisfies(version: str, specifier: str) -> bool:
    numbers = _numbers(version)
    return all(_holds(numbers, clause.strip()) for clause in specifier.split(",") if clause.strip())


def _holds(numbers: tuple[int, ...], clause: str) -> bool:
    operator = clause.rstrip("0123456789.abrc* ")
    bound = _numbers(clause[len(operator) :])
    width = max(len(numbers), len(bound))
    have, want = (n + (0,) * (width - len(n)) for n in (numbers, bound))
    tests = {"==": have == want, ">=": have >= want, "<=": have <= want, "<": have < want}
    return tests.get(operator, True)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0]))


def bakery() -> Result:
    """Building programs is optional: nothing that serves needs it."""
    for module, package in (("pie_bakery", "pie-bakery"), ("componentize_py", "componentize-py")):
        if importlib.util.find_spec(module) is None:
            return Result(
                "warn",
                f"{package} is missing",
                "programs can be run, but not built here",
                f"pip install {package}",
            )
    return ok(f"bakery builds Python with componentize-py {installed('componentize-py')}")
