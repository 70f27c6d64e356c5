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
from pie_backend.base import AdapterError, Backend, BackendError
from pie_backend.batch import AdapterInfo
from pie_daemon.errors import CODES, Code, PieError
from pie_daemon.scheduler.context import Context

NUM_DEATHS = 2
"""So often may a worker die while it loads one adapter; a single time can be chance."""

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
    num_deaths: int = 0
    """Of workers, while they loaded it."""

    @property
    def done(self) -> bool:
        return self.digest is not None or self.error is not None


class Adapters:
    """Thread-safe under the scheduler's lock. `work` is for the scheduler's thread alone.

    An adapter stays while a program holds it, or a context has tokens that it computed or will;
    the others go when a new one needs their room, the least recently used first.

    A new backend has none: `reload` brings back those that are in use. What cannot be brought back
    is lost, and so are the contexts that need it, until somebody opens it again.
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
        self._paths: dict[str, Path] = {}
        self._lost: dict[str, PieError] = {}
        self._deaths: Counter[str] = Counter()
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
            if digest is not None and digest in self._loaded:
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
        """Under the lock. Raises: PieError: no program can have that adapter open, or it is
        lost."""
        if digest is None:
            return
        if digest in self._lost:
            raise PieError(self._lost[digest].code, self._lost[digest].message)
        if digest not in self._loaded:
            raise PieError("not-found", f"no adapter {digest} is loaded")
        self._loaded.move_to_end(digest)

    def require_for(self, context: Context, digest: str | None) -> None:
        """Under the lock: that adapter, and those that computed the context, which may have to be
        computed again. Raises: PieError: as `require`."""
        self.require(digest)
        if self._lost:
            for used in context.adapters.used:
                self.require(used)

    def work(self, backend: Backend) -> None:
        """Loads what programs wait for; between batches, since the backend does one thing at a
        time. Raises: BackendError: it died."""
        while self._waiting:
            opening = self._waiting[0]
            try:
                info = self._load(backend, opening)
            except BackendError as error:
                self._blame(opening, error)
                raise
            except AdapterError as error:
                self._settle(opening, None, PieError(_code(error), error.message))
            except PieError as error:
                self._settle(opening, None, error)
            else:
                self._settle(opening, info, None)

    def reload(self, backend: Backend) -> dict[str, PieError]:
        """Makes those known to a new backend that somebody uses; the ones that it cannot have, and
        why. Raises: BackendError: it died."""
        with self._lock:
            self._forget_unused()
            wanted = list(self._loaded)
        lost: dict[str, PieError] = {}
        for digest in wanted:
            error = self._load_again(backend, digest)
            if error is not None:
                lost[digest] = error
        with self._lock:
            for digest, error in lost.items():
                del self._loaded[digest]
                self._lost[digest] = error
        return lost

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

    def _load_again(self, backend: Backend, digest: str) -> PieError | None:
        if self._deaths[digest] >= NUM_DEATHS:
            return _lost(digest, f"{NUM_DEATHS} workers died while they loaded it")
        path = self._paths[digest]
        try:
            info = backend.load_adapter(str(path))
        except BackendError:
            self._deaths[digest] += 1
            raise
        except AdapterError as error:
            return _lost(digest, error.message)
        self._deaths.pop(digest, None)
        if info.digest == digest:
            return None
        backend.unload_adapter(info.digest)
        return _lost(digest, f"the files in {path} are others by now")

    def _blame(self, opening: Opening, error: BackendError) -> None:
        opening.num_deaths += 1
        if opening.num_deaths >= NUM_DEATHS:
            reason = f"{NUM_DEATHS} workers died while they loaded {opening.path}: {error}"
            self._settle(opening, None, PieError("internal", reason))

    def _evict(self) -> str | None:
        """From here on nobody can hold it."""
        with self._lock:
            unused = self._unused()
            if not unused:
                return None
            self._forget(unused[0])
            return unused[0]

    def _forget_unused(self) -> None:
        for digest in self._unused():
            self._forget(digest)
        used = self._in_contexts()
        for digest in [one for one in self._lost if not self._holds[one] and one not in used]:
            del self._lost[digest], self._holds[digest], self._paths[digest]

    def _unused(self) -> list[str]:
        used = self._in_contexts()
        return [one for one in self._loaded if not self._holds[one] and one not in used]

    def _forget(self, digest: str) -> None:
        del self._loaded[digest], self._holds[digest], self._paths[digest]
        self._by_stamp = {
            stamp: other for stamp, other in self._by_stamp.items() if other != digest
        }

    def _settle(self, opening: Opening, info: AdapterInfo | None, error: PieError | None) -> None:
        with self._lock:
            self._waiting.popleft()
            if info is not None:
                self._loaded[info.digest] = info
                self._paths[info.digest] = opening.path
                self._lost.pop(info.digest, None)
                self._deaths.pop(info.digest, None)
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


def _lost(digest: str, reason: str) -> PieError:
    return PieError(
        "internal",
        f"the worker was started again, and adapter {digest} could not be loaded again: {reason}; "
        "open it again",
    )


def _code(error: AdapterError) -> Code:
    return cast(Code, error.code) if error.code in CODES else "internal"
