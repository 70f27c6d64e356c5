"""One install at a time, in a thread of its own: hashing and compiling may take long."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import structlog

from pie_daemon.errors import PieError
from pie_daemon.watcher.reconcile import Attempt, Install
from pie_daemon.watcher.scan import Found, stamp_of

_log = structlog.get_logger()

# The same bytes may well be accepted later; every other refusal is about the bytes.
_TEMPORARY = ("busy", "exhausted", "internal", "interrupted")


class Store(Protocol):
    """What the watcher needs of the program store."""

    def install(
        self,
        path: Path,
        namespace: str,
        name: str | None = None,
        manifest_override: bytes | None = None,
    ) -> Any: ...
    def remove(self, namespace: str, name: str) -> None: ...
    def reject(self, namespace: str, name: str, reason: str) -> None: ...
    def progress(self, namespace: str, name: str, state: Literal["settling"]) -> None: ...


def attempt(store: Store, namespace: str, order: Install) -> Attempt:
    """Blocks until the program serves, or until it is known and shown why it does not."""
    found = order.found
    try:
        sidecar = found.sidecar_path.read_bytes() if found.sidecar_path else None
        digest = _digest(found.path, sidecar)
        if digest == order.known_digest:
            return Attempt(found.name, digest)
        store.install(found.path, namespace, found.name, sidecar)
    except FileNotFoundError:
        return Attempt(found.name, None, failed=True)
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        return _failed(store, namespace, found.name, reason)
    except PieError as error:
        if error.code in _TEMPORARY:
            return _failed(store, namespace, found.name, error.message)
        store.reject(namespace, found.name, error.message)
        _log.warning("program rejected", program=found.name, reason=error.message)
        return _settled(found, digest)
    _log.info("program installed", program=found.name, digest=digest[:12])
    return _settled(found, digest)


def _settled(found: Found, digest: str) -> Attempt:
    """Written to meanwhile, the store may have seen other bytes than were hashed here."""
    return Attempt(found.name, digest if _untouched(found) else None)


def _digest(path: Path, sidecar: bytes | None) -> str:
    with path.open("rb") as source:
        sha = hashlib.file_digest(source, "sha256")
    if sidecar is not None:
        sha.update(b"\0" + sidecar)
    return sha.hexdigest()


def _untouched(found: Found) -> bool:
    sidecar = stamp_of(found.sidecar_path) if found.sidecar_path else None
    return (stamp_of(found.path), sidecar) == found.version


def _failed(store: Store, namespace: str, name: str, reason: str) -> Attempt:
    store.reject(namespace, name, f"{reason}; it is tried again")
    _log.warning("program not installed yet", program=name, reason=reason)
    return Attempt(name, None, failed=True)


class Installer:
    """The thread. `done` is called from it with the result of each order."""

    def __init__(self, store: Store, namespace: str, done: Callable[[Attempt], None]) -> None:
        self._store = store
        self._namespace = namespace
        self._done = done
        self._orders: queue.SimpleQueue[Install | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="pie-install", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, order: Install) -> None:
        self._orders.put(order)

    def stop(self, timeout_s: float) -> None:
        """An install under way is waited for that long, then left to the end of the process."""
        self._orders.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while (order := self._orders.get()) is not None:
            self._done(self._guarded(order))

    def _guarded(self, order: Install) -> Attempt:
        name = order.found.name
        try:
            return attempt(self._store, self._namespace, order)
        except Exception as error:  # noqa: BLE001 - one program must not end the thread of all
            _log.error("install failed", program=name, exc_info=True)
            return _failed(self._store, self._namespace, name, f"internal error: {error}")
