"""A daemon whose model is divided among two ranks."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from support.daemon import DaemonProcess, is_empty, scheduler_of
from support.waiting import until

pytestmark = pytest.mark.slow
PROMPT = {"prompt": "27 + 15 =", "temperature": 0, "max_tokens": 24, "ignore_eos": True}


def made(*overrides: str) -> tuple[list[int], DaemonProcess]:
    daemon = DaemonProcess("backend.dtype=float32", "backend.kv_pages=256", *overrides)
    daemon.start()
    daemon.install("text-completion")
    with daemon.connect() as client:
        running = [client.launch("text-completion", PROMPT) for _ in range(8)]
        results = [process.result()["tokens"] for process in running]
    assert all(results[0] == other for other in results)
    return results[0], daemon


def test_serves_the_tokens_of_one_process_and_fails_as_one() -> None:
    """Eight programs at once; the status tells the degree; when a rank is killed all are started
    again, the status names it, and no process outlives the daemon."""
    expected, alone = made()
    alone.stop()
    alone.remove()
    found, daemon = made("backend.tensor_parallel=2")
    try:
        assert expected == found
        with daemon.connect() as client:
            assert 2 == client.status().detail["models"]["crumb"]["info"]["tensor_parallel"]
            until(lambda: is_empty(scheduler_of(client)))
            assert scheduler_of(client)["integrity_error"] is None
            assert '"tensor_parallel": 2' in daemon.log.read_text()
            [worker] = psutil.Process(daemon.pid).children()
            [peer] = worker.children()
            os.kill(peer.pid, signal.SIGKILL)
            assert expected == client.launch("text-completion", PROMPT).result()["tokens"]
            told = scheduler_of(client)["worker"]
            assert isinstance(told, dict)
            assert 1 == told["deaths"]
            assert "rank 1" in str(told["last_cause"])
        daemon.stop()
        assert not psutil.pid_exists(worker.pid)
    finally:
        daemon.remove()
