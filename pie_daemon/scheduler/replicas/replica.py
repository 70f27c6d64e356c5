"""A scheduler among others of the same model, and the place where contexts wait for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pie_backend.batch import BackendInfo
from pie_daemon.scheduler.service import Scheduler


class Replica(Scheduler):
    """One worker with its pool and everything that is placed there."""

    def load(self, *, or_later: bool = False) -> int | None:
        """Requests that are not done; None: it does not compute, and if `or_later` never will."""
        if not or_later and self._worker.stats().state != "serving":
            return None
        with self._lock:
            if self._failure is not None:
                return None
            return len(self._state.running) + len(self._state.waiting)

    def num_known(self, keys: Sequence[bytes]) -> int:
        """How many pages from the first on are in its cache, on the device or in host memory."""
        contexts = self._state.contexts
        with self._lock:
            for number, key in enumerate(keys):
                if contexts.pool.find(key) is None and key not in contexts.host:
                    return number
        return len(keys)

    def keys_of(self, context: int) -> list[bytes]:
        """Of the whole pages that a request on it might find."""
        with self._lock:
            found = self._state.contexts.get(context)
            size = self._state.contexts.page_size
            num_whole = min(max(0, len(found.journal) - 1), found.num_plain) // size
            if num_whole:
                self._state.contexts.key_of(found, num_whole - 1)
            return found.keys[:num_whole]


@dataclass(frozen=True, slots=True)
class Nowhere:
    """Stands for a backend where nothing is ever computed."""

    info: BackendInfo
