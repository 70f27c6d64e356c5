"""The threads around the reconciler: wait for a hint or for time to pass, look, act."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog

from pie_daemon.watcher.config import WatcherConfig
from pie_daemon.watcher.install import Installer, Store
from pie_daemon.watcher.notify import Mode, Notifier
from pie_daemon.watcher.reconcile import (
    Action,
    Attempt,
    Install,
    Pending,
    Reconciler,
    Refuse,
    Remove,
    Settling,
)
from pie_daemon.watcher.scan import Scan, scan

# A file that is being copied gives thousands of events a second.
_LEAST_GAP_S = 0.1

_log = structlog.get_logger()


@dataclass(frozen=True)
class WatcherStats:
    """For `pie inferlets` and the status request."""

    folder: str
    mode: Mode
    error: str | None
    """Why the folder cannot be looked at; programs go on serving meanwhile."""
    last_scan_at: float | None
    """Unix seconds of the last look that worked."""
    rebuilds: int
    pending: dict[str, Pending] = field(default_factory=dict)


class Watcher:
    """Keeps the namespace of the store equal to the folder."""

    def __init__(
        self,
        config: WatcherConfig,
        store: Store,
        max_bytes: int,
        *,
        namespace: str = "system",
        look: Scan | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if config.dir is None:
            raise ValueError("watcher.dir has not been filled in")
        self._config = config
        self._folder = Path(config.dir)
        self._store = store
        self._namespace = namespace
        self._look = look or partial(scan, self._folder, max_bytes)
        self._clock = clock
        self._reconciler = Reconciler(config.settle_s)
        self._results: queue.SimpleQueue[Attempt] = queue.SimpleQueue()
        self._dirty = threading.Event()
        self._urgent = threading.Event()
        self._stopping = threading.Event()
        self._notifier = Notifier(self._folder, config.mode, self._dirty.set)
        self._installer = Installer(store, namespace, self._installed)
        self._thread = threading.Thread(target=self._run, name="pie-watcher", daemon=True)
        self._error: str | None = None
        self._last_scan_at: float | None = None
        self._pending: dict[str, Pending] = {}

    def start(self) -> None:
        """Returns at once; programs appear as they are compiled."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._installer.start()
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        self._stopping.set()
        self._urgent.set()
        self._dirty.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self._installer.stop(timeout_s)
        self._notifier.stop()

    def stats(self) -> WatcherStats:
        return WatcherStats(
            folder=str(self._folder),
            mode=self._notifier.mode,
            error=self._error,
            last_scan_at=self._last_scan_at,
            rebuilds=self._notifier.rebuilds,
            pending=dict(self._pending),
        )

    def at_rest(self) -> bool:
        """True when the folder was looked at and everything in it has been dealt with."""
        return self._last_scan_at is not None and not self._pending

    def _run(self) -> None:
        while not self._stopping.is_set():
            wait_s = self._guarded_round()
            if not self._urgent.wait(_LEAST_GAP_S) and not self._stopping.is_set():
                self._dirty.wait(wait_s)

    def _guarded_round(self) -> float:
        try:
            return self.round()
        except Exception:  # noqa: BLE001 - the edge of the thread: the next look may succeed
            _log.error("look at the inferlet folder failed", exc_info=True)
            return self._config.rescan_s

    def round(self) -> float:
        """One look and what follows from it; in how many seconds the next one is due."""
        # Cleared before looking: what changes from here on asks for another look.
        self._dirty.clear()
        self._urgent.clear()
        while not self._results.empty():
            self._reconciler.finished(self._results.get(), self._clock())
        self._notifier.ensure()
        try:
            folder = self._look()
        except OSError as error:
            # A folder that cannot be listed says nothing about its programs: they stay.
            self._complain(f"{self._folder}: {error.strerror or error}")
            return self._config.poll_s
        self._complain(None)
        now_s = self._clock()
        for action in self._reconciler.observe(folder, now_s, time.time_ns()):
            self._guarded_perform(action)
        self._pending = dict(self._reconciler.pending())
        self._last_scan_at = time.time()
        return self._next_s(now_s)

    def _next_s(self, now_s: float) -> float:
        polled = self._notifier.mode == "poll"
        period_s = self._config.poll_s if polled else self._config.rescan_s
        due_s = self._reconciler.next_look_s(now_s)
        return period_s if due_s is None else min(due_s, period_s)

    def _guarded_perform(self, action: Action) -> None:
        try:
            self._perform(action)
        except Exception:  # noqa: BLE001 - what one program causes must not cost another one
            _log.error("inferlet folder: action failed", action=repr(action), exc_info=True)

    def _perform(self, action: Action) -> None:
        match action:
            case Settling(name):
                self._store.progress(self._namespace, name, "settling")
            case Install():
                self._installer.submit(action)
            case Refuse(name, reason):
                _log.warning("program refused", program=name, reason=reason)
                self._store.reject(self._namespace, name, reason)
            case Remove(name):
                _log.info("program removed", program=name)
                self._store.remove(self._namespace, name)

    def _installed(self, attempt: Attempt) -> None:
        self._results.put(attempt)
        self._urgent.set()
        self._dirty.set()

    def _complain(self, error: str | None) -> None:
        if error != self._error:
            if error is not None:
                _log.error("inferlet folder cannot be read", reason=error)
            self._error = error
