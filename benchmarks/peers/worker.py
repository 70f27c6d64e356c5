"""A peer's worker as a contender: asked over a pipe, and stopped while others have their turn."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import torch

from benchmarks.load import Load, Timing
from benchmarks.machine import PEERS
from benchmarks.question import Unanswerable

_HERE = Path(__file__).parent
_OURS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
_TCMALLOC = PEERS / "lib/libtcmalloc_minimal.so.4"


def dtype() -> str:
    """The faster one for peers: without instructions for it bfloat16 is a slow way round for them,
    and float32 is their best, though it reads twice the memory."""
    return "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"


def dtype_notes() -> list[str]:
    """For a reader of the table; none where all compute in the same."""
    if dtype() == "bfloat16":
        return []
    return [
        "The processor has no instructions for bfloat16: the peers compute in float32, which is "
        "several times faster for them here; Pie in bfloat16."
    ]


class Worker:
    """Loads when it is made; the first run after that may compile."""

    def __init__(self, script: str, peer: str, settings: dict[str, Any], **env: str) -> None:
        require(peer)
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [str(PEERS / peer / "bin/python"), str(_HERE / script), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**environment(), **env},
        )
        self._answer()
        self._rest()

    def run(self, load: Load) -> Timing:
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.write(msgspec.json.encode(load) + b"\n")
        self._process.stdin.flush()
        timing = msgspec.json.decode(self._answer(), type=Timing)
        self._rest()
        return timing

    def _rest(self) -> None:
        # Its threads may spin for a while after their work, and that would be another's time.
        self._process.send_signal(signal.SIGSTOP)

    def _answer(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._log.seek(0)
            raise RuntimeError(f"the peer ended:\n{self._log.read()[-4000:]}")
        return line

    def close(self) -> None:
        """It ends when nobody can ask it any more."""
        self._process.send_signal(signal.SIGCONT)
        self._process.communicate(timeout=60)
        self._log.close()


def require(peer: str) -> None:
    if not (PEERS / peer / ".complete").is_file():
        raise Unanswerable(
            f"{peer} is not installed under {PEERS}. `make bench` installs it, and so does "
            "benchmarks/peers/setup.sh; --quick asks without peers."
        )


def environment() -> dict[str, str]:
    """Ours, without what Pie says to its own threads: a peer waits as it likes best."""
    inherited = {name: value for name, value in os.environ.items() if name not in _OURS}
    return {**inherited, "HF_HUB_OFFLINE": "1"}


def vllm_environment() -> dict[str, str]:
    """Of all ways that were tried (docs/performance/peers.md), the fastest."""
    return {
        "LD_PRELOAD": str(_TCMALLOC.absolute()) if _TCMALLOC.exists() else "",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": "0-1",
    }


def vllm(model: Path, max_tokens: int, max_seqs: int) -> Worker:
    """`max_tokens`: of one request. Compiled, which is its fastest way, too."""
    settings = {
        "model": str(model),
        "dtype": dtype(),
        "max_model_len": max_tokens,
        "max_num_seqs": max_seqs,
        "max_num_batched_tokens": max(max_tokens, 2048),
    }
    return Worker(
        "vllm_worker.py",
        "vllm",
        settings,
        # Its engine runs in the worker itself, so that it can be stopped with it.
        **vllm_environment(),
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
    )


def transformers(model: Path, how: str, num_blocks: int = 0, batch_tokens: int = 0) -> Worker:
    """`how`: "generate", or "generate_batch", its continuous batching, which needs a pool."""
    settings = {
        "model": str(model),
        "dtype": dtype(),
        "how": how,
        "num_blocks": num_blocks,
        "max_batch_tokens": batch_tokens,
    }
    return Worker("transformers_worker.py", "transformers", settings)
