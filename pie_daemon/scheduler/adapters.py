"""The adapters of one model: loaded between batches, kept while used, evicted for others."""

from __future__ import annotations

import os
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import cast

from pie_backend.adapter_dir import CONFIG_FILE, WEIGHTS_FILE
from pie_backend.base import AdapterError, Backend
from pie_backend.batch import AdapterInfo
from pie_daemon.errors import CODES, Code, PieError

Stamp = tuple[tuple[int, int, int, int], ...]
"""Of both files: device, inode, size and time; equal stamps are equal content."""


@dataclass(slots=True, eq=False)
class Opening:
    """One program's hold on an adapter, from the moment it asks until it lets go."""

    path: Path
    stamp: Stamp
    notify: Callable[[], None]
    digest: str | None = None
    error: PieError | None = None
    closed: bool = False

    @property
    def done(self) -> bool:
        return self.digest is not None or self.error is not None


class Adapters:
    """Thread-safe under the scheduler's lock. `work` is for the scheduler's thread alone.

    An adapter stays while a program holds it, or a context has tokens that it computed or will;
    the others go when a new one needs their room, the least recently used first.
    """

    def __init__(
        self, lock: Lock, wake: Callable[[], None], in_contexts: Callable[[], set[str]]
    ) -> None:
        """`in_contexts` is called under the lock."""
        self._lock = lock
        self._wake = wake
        self._in_contexts = in_contexts
        self._loaded: OrderedDict[str, AdapterInfo] = OrderedDict()  # least recently used first
        self._by_stamp: dict[Stamp, str] = {}
        self._holds: Counter[str] = Counter()
        self._waiting: deque[Opening] = deque()
        self._failure: PieError | None = None

    @property
    def num_loaded(self) -> int:
        return len(self._loaded)

    @property
    def is_awaited(self) -> bool:
        """A program waits for one to be loaded."""
        return bool(self._waiting)

    @property
    def num_bytes(self) -> int:
        return sum(info.num_bytes for info in self._loaded.values())

    def open(self, path: Path, notify: Callable[[], None]) -> Opening:
        """`notify` is called by the scheduler's thread once it is done, unless it is at once.

        Raises: PieError: `not-found`: there are no such files.
        """
        opening = Opening(path, _stamp(path), notify)
        with self._lock:
            if self._failure is not None:
                raise PieError(self._failure.code, self._failure.message)
            digest = self._by_stamp.get(opening.stamp)
            if digest is not None:
                self._hold(opening, digest)
                return opening
            self._waiting.append(opening)
        self._wake()
        return opening

    def close(self, opening: Opening) -> None:
        """Once for each opening, done or not."""
        with self._lock:
            opening.closed = True
            if opening.digest is not None:
                self._holds[opening.digest] -= 1

    def require(self, digest: str | None) -> None:
        """Under the lock. Raises: PieError: no program can have that adapter open."""
        if digest is None:
            return
        if digest not in self._loaded:
            raise PieError("not-found", f"no adapter {digest} is loaded")
        self._loaded.move_to_end(digest)

    def work(self, backend: Backend) -> None:
        """Loads what programs wait for; between batches, since the backend does one thing at a
        time. Raises: BackendError: it died."""
        while self._waiting:
            opening = self._waiting[0]
            try:
                info = self._load(backend, opening)
            except AdapterError as error:
                self._settle(opening, None, PieError(_code(error), error.message))
            except PieError as error:
                self._settle(opening, None, error)
            else:
                self._settle(opening, info, None)

    def fail(self, error: PieError) -> None:
        """The backend is gone, and with it what it held."""
        with self._lock:
            self._failure = error
            openings = list(self._waiting)
        for opening in openings:
            self._settle(opening, None, error)

    def _load(self, backend: Backend, opening: Opening) -> AdapterInfo | None:
        """None: nobody wants it any more."""
        while not opening.closed:
            try:
                return backend.load_adapter(str(opening.path))
            except AdapterError as error:
                if not error.no_room:
                    raise
                victim = self._evict()
                if victim is None:
                    raise PieError(
                        "quota", f"{error.message}, and programs use all of them"
                    ) from None
                backend.unload_adapter(victim)
        return None

    def _evict(self) -> str | None:
        """From here on nobody can hold it."""
        with self._lock:
            used = self._in_contexts()
            for digest in self._loaded:
                if not self._holds[digest] and digest not in used:
                    del self._loaded[digest], self._holds[digest]
                    self._by_stamp = {
                        stamp: other for stamp, other in self._by_stamp.items() if other != digest
                    }
                    return digest
            return None

    def _settle(self, opening: Opening, info: AdapterInfo | None, error: PieError | None) -> None:
        with self._lock:
            self._waiting.popleft()
            if info is not None:
                self._loaded[info.digest] = info
                self._by_stamp[opening.stamp] = info.digest
                if not opening.closed:
                    self._hold(opening, info.digest)
            opening.error = error
        opening.notify()

    def _hold(self, opening: Opening, digest: str) -> None:
        self._loaded.move_to_end(digest)
        self._holds[digest] += 1
        opening.digest = digest


def _stamp(path: Path) -> Stamp:
    try:
        stats = [os.stat(path / name) for name in (CONFIG_FILE, WEIGHTS_FILE)]
    except OSError as error:
        raise PieError(
            "not-found", f"the adapter in {path} cannot be read: {error.strerror} {error.filename}"
        ) from None
    return tuple((one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns) for one in stats)


def _code(error: AdapterError) -> Code:
    return cast(Code, error.code) if error.code in CODES else "internal"
