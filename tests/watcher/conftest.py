"""A watcher on a real folder, with a store that remembers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pie_daemon.watcher.config import WatcherConfig
from pie_daemon.watcher.service import Watcher
from support.folder import FakeStore, eventually


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "inferlets"


@pytest.fixture(params=["inotify", "poll"])
def watcher(request: pytest.FixtureRequest, folder: Path, store: FakeStore) -> Iterator[Watcher]:
    """Runs in both modes, quickly; the periodic look cannot help out in inotify mode."""
    config = WatcherConfig(
        dir=str(folder), mode=request.param, settle_s=0.15, rescan_s=3600, poll_s=0.1
    )
    watcher = Watcher(config, store, max_bytes=1000)
    watcher.start()
    eventually(watcher.at_rest)
    yield watcher
    watcher.stop()
