"""The notifier hears again after each way of going deaf, and says when it cannot hear at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pie_daemon.watcher import notify
from pie_daemon.watcher.config import WatcherConfig
from pie_daemon.watcher.notify import Notifier, file_system
from pie_daemon.watcher.service import Watcher
from support.folder import FakeStore, eventually


@pytest.fixture
def heard() -> threading.Event:
    return threading.Event()


@pytest.fixture
def notifier(tmp_path: Path, heard: threading.Event) -> Iterator[Notifier]:
    notifier = Notifier(tmp_path, "inotify", heard.set)
    notifier.ensure()
    yield notifier
    notifier.stop()


def test_exception_in_the_callback_does_not_deafen(tmp_path: Path) -> None:
    """The observer's thread survives whatever the callback does."""
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise RuntimeError("boom")

    notifier = Notifier(tmp_path, "inotify", fail)
    notifier.ensure()
    try:
        for name in ("a", "b"):
            calls.clear()
            (tmp_path / name).write_bytes(b"x")
            eventually(lambda: calls != [])
    finally:
        notifier.stop()


def test_dead_emitter_is_replaced(
    tmp_path: Path, notifier: Notifier, heard: threading.Event
) -> None:
    """An observer that lives on without its emitter is made anew at the next look."""
    observer = notifier._observer
    assert observer is not None
    for emitter in observer.emitters:
        emitter.stop()
        emitter.join()
    assert observer.is_alive()

    notifier.ensure()
    (tmp_path / "a").write_bytes(b"x")

    assert heard.wait(10)
    assert 1 == notifier.rebuilds


def test_looking_at_the_folder_is_not_heard(
    tmp_path: Path, notifier: Notifier, heard: threading.Event
) -> None:
    """Listing the folder and reading its files must not ask for another look, for ever."""
    (tmp_path / "a").write_bytes(b"x")
    assert heard.wait(10)
    (tmp_path / "last").write_bytes(b"x")
    eventually(lambda: not _still_hearing(heard))

    list(tmp_path.iterdir())
    (tmp_path / "a").read_bytes()

    assert not heard.wait(1)


def _still_hearing(heard: threading.Event) -> bool:
    heard.clear()
    return heard.wait(1)


def test_without_watches_left_the_folder_is_polled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: FakeStore
) -> None:
    """A kernel that has no watch left costs a second, not the daemon."""

    class Exhausted:
        emitters = ()

        def schedule(self, *_: object, **__: object) -> None:
            raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(notify, "Observer", Exhausted)
    config = WatcherConfig(dir=str(tmp_path), settle_s=0.05, rescan_s=3600, poll_s=0.05)
    watcher = Watcher(config, store, max_bytes=100)
    watcher.start()
    try:
        (tmp_path / "a.wasm").write_bytes(b"good")
        eventually(lambda: "a" in store.serving)
        assert "poll" == watcher.stats().mode
    finally:
        watcher.stop()


def test_lost_events_are_healed_by_the_periodic_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: FakeStore
) -> None:
    """A deaf notifier that looks healthy delays a program by one period, no more."""
    monkeypatch.setattr(notify._Handler, "on_any_event", lambda *_: None)
    config = WatcherConfig(dir=str(tmp_path), mode="inotify", settle_s=0.05, rescan_s=0.2)
    watcher = Watcher(config, store, max_bytes=100)
    watcher.start()
    try:
        eventually(watcher.at_rest)
        (tmp_path / "a.wasm").write_bytes(b"good")
        eventually(lambda: "a" in store.serving)
        assert "inotify" == watcher.stats().mode
    finally:
        watcher.stop()


@pytest.mark.parametrize(
    ("mounts", "kind", "mode"),
    [
        ("dev / ext4 rw 0 0\nsrv:/x {0} nfs4 rw 0 0\n", "nfs4", "poll"),
        ("dev / ext4 rw 0 0\n", "ext4", "inotify"),
        ("x {0} nfs rw 0 0\ny {0} tmpfs rw 0 0\n", "tmpfs", "inotify"),
        ("sshfs {0} fuse.sshfs rw 0 0\n", "fuse.sshfs", "poll"),
        ("", None, "inotify"),
    ],
)
def test_network_file_systems_are_polled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounts: str, kind: str | None, mode: str
) -> None:
    """The kernel tells nothing of what other machines write."""
    table = tmp_path / "mounts"
    table.write_text(mounts.format(tmp_path))

    assert kind == file_system(tmp_path / "inferlets", table)
    monkeypatch.setattr(notify, "file_system", lambda _: kind)
    assert mode == notify._choose(tmp_path)
