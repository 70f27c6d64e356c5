from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.daemon import DaemonProcess
from support.waiting import until


@pytest.fixture(scope="session")
def daemon() -> Iterator[DaemonProcess]:
    """One daemon for all tests: crumb in float32, three inferlets in its folder."""
    daemon = DaemonProcess("backend.dtype=float32", "backend.kv_pages=4096", "runtime.drain_s=1")
    try:
        daemon.start()
        daemon.install("text-completion", "chat", "echo", "behave")
        yield daemon
        assert 0 == daemon.stop(), daemon.log.read_text()
    finally:
        daemon.remove()


@pytest.fixture
def clean(daemon: DaemonProcess) -> Iterator[DaemonProcess]:
    """The daemon, whose page accounting has to be clean and empty after the test."""
    from support.daemon import is_empty, scheduler_of

    yield daemon
    with daemon.connect() as client:
        until(lambda: is_empty(scheduler_of(client)))
        numbers = scheduler_of(client)
    assert numbers["integrity_error"] is None
    assert 0 == numbers["reserved_pages"]
