"""How long programs pause when their worker is killed: `python -m benchmarks.pause`.

Beside it what loading the model alone takes, which is the least that a restart can take. Contexts
are computed anew within the pause that a program sees, from the kill to its next token.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import time
from functools import partial
from threading import Event

from benchmarks.model import SMALL, checkpoint
from pie_backend.batch import BackendConfig
from pie_backend.create import create_backend
from pie_backend.process import ProcessBackend
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.service import Scheduler
from pie_daemon.scheduler.worker import Worker

NUM_ROUNDS = 5
NUM_CONTEXT_TOKENS = 512


def main() -> None:
    for path in ("crumb", str(checkpoint(SMALL))):
        config = BackendConfig(name="m", path=path, kv_pages=256)
        loads, restarts, pauses = [], [], []
        for _ in range(NUM_ROUNDS):
            loads.append(_load_s(config))
            restart_s, pause_s = _pause_s(config)
            restarts.append(restart_s)
            pauses.append(pause_s)
        load, restart, pause = map(statistics.median, (loads, restarts, pauses))
        sys.stdout.write(
            f"{path}: loading {load:.2f} s; restart {restart:.2f} s ({restart / load:.2f} of it); "
            f"to the next token of {NUM_CONTEXT_TOKENS} {pause:.2f} s ({pause / load:.2f})\n"
        )


def _load_s(config: BackendConfig) -> float:
    begun = time.monotonic()
    create_backend(config).close()
    return time.monotonic() - begun


def _pause_s(config: BackendConfig) -> tuple[float, float]:
    """What the scheduler reports, and what a program sees."""
    worker, woken = Worker.start(partial(create_backend, config)), Event()
    scheduler = Scheduler(worker, lambda token: b"x")
    scheduler.start()
    context = scheduler.create_context("one")
    scheduler.append(context, [1 + i % 900 for i in range(NUM_CONTEXT_TOKENS)])
    request = scheduler.generate(
        context, GenerateParams(max_tokens=400, ignore_eos=True), woken.set
    )
    _next_token(scheduler, request, woken)
    backend = worker.use()
    assert isinstance(backend, ProcessBackend)
    os.kill(backend.pid, signal.SIGKILL)
    begun = time.monotonic()
    while scheduler.stats().worker.last_pause_s == 0:
        _next_token(scheduler, request, woken)
    pause_s = time.monotonic() - begun
    restart_s = scheduler.stats().worker.last_pause_s
    scheduler.stop()
    worker.close()
    return restart_s, pause_s


def _next_token(scheduler: Scheduler, request: int, woken: Event) -> None:
    while scheduler.take(request) is None:
        woken.wait()
        woken.clear()


if __name__ == "__main__":
    main()
