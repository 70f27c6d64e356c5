"""Compiles FlashInfer's kernels ahead, for a machine whose time is dear or that has no nvcc.

    python -m benchmarks.gpu.compile FOLDER --capability 9.0a [--head-dims 64 128]

Needs nvcc, ninja and flashinfer-python, no GPU. FOLDER on PYTHONPATH is all that the other machine
needs: it becomes the package that FlashInfer itself looks for.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.rounds import say
from pie_backend.engine.devices.facts import FLASHINFER
from pie_backend.engine.ops.flashinfer.library import load

_PACKAGE = f'''"""Kernels compiled ahead."""

from pathlib import Path

__version__ = "{FLASHINFER}"


def get_jit_cache_dir() -> str:
    return str(Path(__file__).parent / "jit_cache")
'''


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.compile", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path)
    parser.add_argument("--capability", required=True, help="such as 8.0 or 9.0a")
    parser.add_argument("--head-dims", type=int, nargs="+", default=[64, 128])
    asked = parser.parse_args()
    os.environ["FLASHINFER_CUDA_ARCH_LIST"] = asked.capability  # read when FlashInfer is imported
    package = asked.folder / "flashinfer_jit_cache"
    (package / "jit_cache").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as stand_ins:
        _stand_in_for_the_driver(Path(stand_ins))
        load()
        for spec in _specs(asked.head_dims):
            begun = time.perf_counter()
            spec.build(verbose=False)
            target = package / "jit_cache" / spec.name
            target.mkdir(exist_ok=True)
            shutil.copy(spec.jit_library_path, target)
            say(f"{spec.name}: {time.perf_counter() - begun:.0f} s")
    (package / "__init__.py").write_text(_PACKAGE)


def _stand_in_for_the_driver(folder: Path) -> None:
    """The linker asks for libcuda, which comes with a driver; on the other machine there is one."""
    empty = ["gcc", "-shared", "-o", str(folder / "libcuda.so"), "-x", "c", "/dev/null"]
    subprocess.run(empty, check=True)
    places = [os.environ.get("LIBRARY_PATH"), str(folder)]
    os.environ["LIBRARY_PATH"] = os.pathsep.join(filter(None, places))


def _specs(head_dims: list[int]) -> list[Any]:
    """All that `attention/flashinfer.py` and `ops/flashinfer` call, in bfloat16."""
    import torch
    from flashinfer import jit
    from flashinfer.jit.page import gen_page_module
    from flashinfer.jit.quantization import gen_quantization_module
    from flashinfer.jit.rope import gen_rope_module

    dtypes = (torch.bfloat16, torch.bfloat16, torch.bfloat16, torch.int32)
    specs = [gen_page_module(), gen_quantization_module(), gen_rope_module()]
    for dim in head_dims:
        specs.append(jit.gen_batch_decode_module(*dtypes, dim, dim, 0, False, False))
        specs.append(jit.gen_batch_prefill_module("fa2", *dtypes, dim, dim, 0, False, False, False))
    return specs


if __name__ == "__main__":
    main()
