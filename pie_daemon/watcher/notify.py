"""Tells that something may have changed. It may be wrong both ways: a periodic look heals that."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import structlog
from watchdog import events
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

Mode = Literal["inotify", "poll"]

_log = structlog.get_logger()

# Opening and closing unread files is left out: looking at the folder does that itself.
_EVENTS: list[type[events.FileSystemEvent]] = [
    events.FileCreatedEvent,
    events.FileModifiedEvent,
    events.FileAttribEvent,
    events.FileClosedEvent,
    events.FileMovedEvent,
    events.FileDeletedEvent,
    events.DirCreatedEvent,
    events.DirMovedEvent,
    events.DirDeletedEvent,
]
_REMOTE = ("nfs", "cifs", "smb", "9p", "fuse", "ceph", "gluster", "afs", "vboxsf", "virtiofs")


class Notifier:
    """Calls `on_change` from a thread of its own; rebuilt whenever it has gone deaf."""

    def __init__(
        self,
        folder: Path,
        mode: Literal["auto", "inotify", "poll"],
        on_change: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._handler = _Handler(on_change)
        self._wanted: Mode = _choose(folder) if mode == "auto" else mode
        self._observer: BaseObserver | None = None
        self._identity: tuple[int, int] | None = None
        self.rebuilds = 0
        """How often the observer had to be made anew."""

    @property
    def mode(self) -> Mode:
        """What is in force; poll, too, when the kernel has no watch left to give."""
        return "poll" if self._observer is None else "inotify"

    def ensure(self) -> None:
        """Starts the observer, or replaces one that no longer hears the folder."""
        if self._wanted == "poll" or self._hears():
            return
        if self._observer is not None:
            self.rebuilds += 1
            self.stop()
        try:
            self._start()
        except OSError as error:
            self.stop()
            _log.warning("folder is polled", folder=str(self._folder), reason=str(error))

    def stop(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None and observer.is_alive():
            observer.stop()
            observer.join(timeout=5)

    def _start(self) -> None:
        identity = _identity(self._folder)
        observer = Observer()
        observer.schedule(self._handler, str(self._folder), event_filter=_EVENTS)
        observer.start()
        self._observer, self._identity = observer, identity

    def _hears(self) -> bool:
        """An observer outlives the folder and its own emitters without a word."""
        observer = self._observer
        if observer is None or not observer.is_alive():
            return False
        if not all(emitter.is_alive() for emitter in observer.emitters):
            return False
        try:
            return _identity(self._folder) == self._identity
        except OSError:
            return False


class _Handler(events.FileSystemEventHandler):
    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change

    def on_any_event(self, event: events.FileSystemEvent) -> None:
        """An exception in here would end the observer's thread for good."""
        try:
            self._on_change()
        except Exception:  # noqa: BLE001 - the edge of a foreign thread
            _log.error("folder event lost", exc_info=True)


def _identity(folder: Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _choose(folder: Path) -> Mode:
    kind = file_system(folder)
    return "poll" if kind is not None and kind.startswith(_REMOTE) else "inotify"


def file_system(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """The type of file system a folder lies on; None where the system does not say."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    found: tuple[int, str] | None = None
    target = folder.resolve()
    for line in lines:
        _, mount_point, kind, *_ = line.split(" ")
        place = Path(mount_point.replace("\\040", " "))
        # Of two mounts on one place the later one is on top.
        if target.is_relative_to(place) and (found is None or len(place.parts) >= found[0]):
            found = len(place.parts), kind
    return found[1] if found else None
