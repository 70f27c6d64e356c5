"""A daemon whose model is computed by two workers."""

from __future__ import annotations

import psutil
import pytest

from pie_daemon.cli import status
from support.daemon import DaemonProcess, is_empty, scheduler_of
from support.waiting import until

pytestmark = pytest.mark.slow


def test_serves_from_both_and_tells_of_each() -> None:
    """Sixteen programs at once get the tokens of each alone; the status has both replicas."""
    daemon = DaemonProcess(
        "backend.dtype=float32",
        "backend.device=cpu",
        "backend.kv_pages=256",
        "backend.replicas=2",
    )
    try:
        daemon.start()
        daemon.install("text-completion")
        asked = [
            {"prompt": f"{n} + {n} =", "temperature": 0, "max_tokens": 16, "ignore_eos": True}
            for n in range(16)
        ]
        with daemon.connect() as client:
            alone = [client.launch("text-completion", one).result()["tokens"] for one in asked]
            running = [client.launch("text-completion", one) for one in asked]
            assert alone == [process.result()["tokens"] for process in running]
            until(lambda: is_empty(scheduler_of(client)))
            told = client.status()
        assert 2 == len(psutil.Process(daemon.pid).children())
        numbers = told.detail["models"]["crumb"]["scheduler"]
        assert all(one["generated_tokens"] > 0 for one in numbers["replicas"])
        assert numbers["num_pages"] == 512
        lines = list(status._lines(told))
        assert 2 == sum(line.startswith("  replica ") for line in lines)
        assert [] == list(status.troubles(told))
        assert 0 == daemon.stop(), daemon.log.read_text()
    finally:
        daemon.remove()
