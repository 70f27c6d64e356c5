"""vLLM's OpenAI server as a peer: it stands still while others have their turn."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from socket import create_server
from typing import Any

import httpx

from benchmarks.machine import PEERS
from benchmarks.peers.worker import environment, require, vllm_environment

_START_S = 300.0
_INTEL_OPENMP = PEERS / "vllm/lib/libiomp5.so"
"""Comes with vLLM, which asks for it where it speculates."""


class Server:
    """Listens on `port` once it is made."""

    def __init__(self, model: Path, settings: Mapping[str, Any]) -> None:
        """`settings` are its options, by their names on the command line; objects become JSON."""
        require("vllm")
        self.port = _free_port()
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [
                *(str(PEERS / "vllm/bin/python"), "-m", "vllm.entrypoints.openai.api_server"),
                *("--model", str(model), "--port", str(self.port), "--host", "127.0.0.1"),
                *_options(settings),
            ],
            stdout=self._log,
            stderr=self._log,
            env={
                **environment(),
                **_environment(settings),
                # Connections stay open while it stands still: else it closes them at its next turn.
                "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "3600",
            },
        )
        self._wait()
        self._rest()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """It runs within this, and not outside."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._rest()

    def close(self) -> None:
        self._signal(signal.SIGCONT)
        self._process.terminate()
        self._process.wait(60)
        self._log.close()

    def _rest(self) -> None:
        self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        for pid in family(self._process.pid):
            os.kill(pid, number)

    def _wait(self) -> None:
        deadline_s = time.monotonic() + _START_S
        while not _healthy(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self._process.kill()
                self._log.seek(0)
                raise RuntimeError(f"vLLM did not start:\n{self._log.read()[-4000:]}")
            time.sleep(0.5)


def family(pid: int) -> list[int]:
    """The process and all below it."""
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").glob("*/children")
        for child in task.read_text().split()
    ]
    return [pid, *(one for child in children for one in family(child))]


def _environment(settings: Mapping[str, Any]) -> dict[str, str]:
    """Of all ways that were tried (docs/performance/peers.md), the fastest."""
    usual = vllm_environment()
    chosen = {
        # The engine computes in its own process: a worker of its own would have it spin beside it.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # VLLM_CPU_OMP_THREADS_BIND is for such workers alone, and their number of threads.
        "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
    }
    if "speculative_config" in settings:
        chosen["LD_PRELOAD"] = f"{usual['LD_PRELOAD']}:{_INTEL_OPENMP.absolute()}".lstrip(":")
    return usual | chosen


def _options(settings: Mapping[str, Any]) -> Iterator[str]:
    for name, value in settings.items():
        yield f"--{name.replace('_', '-')}"
        if value is not True:
            yield json.dumps(value) if isinstance(value, dict) else str(value)


def _free_port() -> int:
    with create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def _healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).is_success
    except httpx.HTTPError:
        return False
