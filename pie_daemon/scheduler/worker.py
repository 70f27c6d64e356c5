"""The backend of one model through all its lives: used, buried, built again, replaced."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Literal

from pie_backend.base import Backend, BackendError
from pie_backend.batch import BackendInfo
from pie_backend.lifeline import Lifeline
from pie_daemon.scheduler.backoff import Backoff
from pie_daemon.scheduler.stats import WorkerStats

_log = logging.getLogger(__name__)

Build = Callable[[Lifeline], Backend]
"""Blocks until there is a backend. Raises BackendError."""
Outcome = Literal["applied", "rejected", "rolled_back", "failed_to_restore"]
STOPPED = "the scheduler was stopped"


def _wait(event: Event, seconds: float) -> None:
    event.wait(seconds)


@dataclass(slots=True, eq=False)
class Replacement:
    """Another backend that is to take over; `outcome` is there once `done` is set."""

    build: Build
    built: tuple[Backend, Lifeline] | None = None
    """It was built while the old one served."""
    done: Event = field(default_factory=Event)
    outcome: Outcome = "rejected"
    reason: str = ""
    """Why it was not applied."""

    def finish(self, outcome: Outcome, reason: str = "") -> None:
        self.outcome, self.reason = outcome, self.reason or reason
        self.done.set()


class Worker:
    """Owns a backend. One thread uses it: the scheduler's, which after a death calls `bury`, then
    `next` until there is another one, and `settle` once that serves. Other threads may ask for a
    replacement, for numbers, and for the end.

    However often the backend changes, the model stays: one with other tokens is refused.
    """

    def __init__(
        self,
        backend: Backend,
        build: Build | None = None,
        lifeline: Lifeline | None = None,
        *,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[Event, float], None] = _wait,
    ) -> None:
        """Without `build` the backend has one life only. `wait` waits for an event so long."""
        self._backend: Backend | None = backend
        self._build = build
        self._lifeline = lifeline or Lifeline()
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._wait = wait
        self._wake: Callable[[], None] = lambda: None
        self._info = backend.info
        self._lock = Lock()
        self._hurry = Event()
        self._stopping = False
        self._is_building = False
        self._asked: Replacement | None = None
        self._trying: Replacement | None = None
        self._restoring: Replacement | None = None
        self._state: Literal["serving", "restarting", "replacing", "ended"] = "serving"
        self._since_s = clock()
        self._next_s = 0.0
        self._num_deaths = 0
        self._last_cause: str | None = None
        self._last_pause_s = 0.0

    @classmethod
    def start(cls, build: Build, *, backoff: Backoff | None = None) -> Worker:
        """With the first one built. Raises: BackendError: it cannot be."""
        lifeline = Lifeline()
        return cls(build(lifeline), build, lifeline, backoff=backoff)

    @property
    def info(self) -> BackendInfo:
        """Of the backend that serves, or served last."""
        return self._info

    @property
    def is_to_be_replaced(self) -> bool:
        return self._asked is not None

    def listen(self, wake: Callable[[], None]) -> None:
        """`wake` is called, by any thread, when there is reason to call `use`."""
        self._wake = wake
        self._lifeline.listen(wake)

    def use(self) -> Backend:
        """Raises: BackendError: it is dead."""
        if self._lifeline.cause is not None:
            raise BackendError(self._lifeline.cause)
        if self._backend is None:
            raise BackendError("the backend is closed")
        return self._backend

    def bury(self, error: BackendError) -> None:
        """It has died. Raises: that error, when there will be no other one."""
        self._close_backend()
        self._last_cause = str(error)
        self._num_deaths += 1
        if self._build is None or self._stopping:
            self._state = "ended"
            raise error
        self._failed(str(error))

    def retire(self) -> None:
        """It makes way for the replacement."""
        self._close_backend()
        self._state, self._since_s = "replacing", self._clock()

    def forgive(self) -> None:
        """What killed it will not do so again."""
        self._backoff.forgive()
        self._next_s = self._clock()

    def next(self) -> Backend | None:
        """Waits for as long as it takes to have a backend; None: until `stop` was called."""
        while not self._stopping:
            try:
                backend = self._try()
            except BackendError as error:
                if not self._stopping:
                    self._last_cause = str(error)
                    self._failed(str(error))
            else:
                if backend is not None:
                    return backend
        return None

    def settle(self) -> None:
        """What `next` gave serves now."""
        now_s = self._clock()
        self._last_pause_s = now_s - self._since_s
        self._state, self._since_s = "serving", now_s
        if self._backend is not None:
            self._info = self._backend.info
        if self._trying is not None:
            self._build = self._trying.build
            self._trying.finish("applied")
        if self._restoring is not None:
            self._restoring.finish("rolled_back")
        self._trying = self._restoring = None
        _log.info("the worker of %s serves again after %.1f s", self._info.name, self._last_pause_s)

    # From other threads

    def replace(self, build: Build, *, beside: bool) -> Replacement:
        """Has another backend take over between two batches, and waits for that.

        Beside: it is built while the old one serves, so for a while there are both; else the old
        one ends first, and comes back if the other cannot be built.
        """
        replacement = Replacement(build)
        if beside:
            lifeline = Lifeline()
            try:
                replacement.built = self._checked(build, lifeline), lifeline
            except BackendError as error:
                replacement.finish("rolled_back", str(error))
                return replacement
        with self._lock:
            refusal = self._refusal()
            if refusal is None:
                self._asked = replacement
        if refusal is not None:
            _discard(replacement)
            replacement.finish("rejected", refusal)
            return replacement
        self._hurry.set()
        self._wake()
        replacement.done.wait()
        return replacement

    def stop(self) -> None:
        """No other backend will come; one that is being built is ended."""
        with self._lock:
            self._stopping = True
            lifeline = self._lifeline if self._is_building else None
        if lifeline is not None:
            lifeline.cut()
        self._hurry.set()

    def close(self) -> None:
        """Ends the backend, also one that is being built or is stuck. May be called twice."""
        self.stop()
        self._close_backend()
        with self._lock:
            pending = [self._asked, self._trying, self._restoring]
            self._asked = self._trying = self._restoring = None
        for replacement in pending:
            if replacement is not None:
                _discard(replacement)
                replacement.finish("failed_to_restore", STOPPED)

    def stats(self) -> WorkerStats:
        serves = self._state in ("serving", "ended")
        return WorkerStats(
            state=self._state,
            deaths=self._num_deaths,
            attempt=0 if serves else self._backoff.num_failures,
            next_attempt_s=0.0 if serves else max(0.0, self._next_s - self._clock()),
            last_cause=self._last_cause,
            last_pause_s=self._last_pause_s,
        )

    def _refusal(self) -> str | None:
        if self._stopping or self._state == "ended":
            return STOPPED
        if self._build is None:
            return "the backend could not come back: nobody told how to build it"
        return None if self._asked is None else "another replacement is under way"

    def _try(self) -> Backend | None:
        """None: something else came up while it waited."""
        self._hurry.clear()
        with self._lock:
            asked, self._asked = self._asked, None
            self._trying = asked or self._trying
        if asked is None and not self._pause():
            return None
        if asked is not None and asked.built is not None:
            self._backend, self._lifeline = asked.built
            asked.built = None
        else:
            build = self._build if asked is None else asked.build
            assert build is not None  # `bury` would have raised
            self._backend = self._build_next(build)
        self._lifeline.listen(self._wake)
        return self._backend

    def _pause(self) -> bool:
        left_s = self._next_s - self._clock()
        if left_s > 0 and not self._stopping:
            self._wait(self._hurry, left_s)
        return not self._hurry.is_set()

    def _build_next(self, build: Build) -> Backend:
        lifeline = Lifeline()
        with self._lock:
            self._lifeline, self._is_building = lifeline, True
            if self._stopping:
                raise BackendError(STOPPED)
        try:
            return self._checked(build, lifeline)
        finally:
            self._is_building = False

    def _checked(self, build: Build, lifeline: Lifeline) -> Backend:
        backend = build(lifeline)
        complaint = STOPPED if lifeline.is_cut else _difference(self._info, backend.info)
        if complaint is not None:
            backend.close()
            raise BackendError(complaint)
        return backend

    def _failed(self, cause: str) -> None:
        """The one before does not serve any more, or this one not yet."""
        now_s, name = self._clock(), self._info.name
        trying, self._trying = self._trying, None
        if trying is not None:
            _log.error("the new worker of %s: %s; the old one comes back", name, cause)
            trying.reason, self._restoring, self._next_s = cause, trying, now_s
            return
        if self._restoring is not None:
            self._restoring.finish("failed_to_restore")
            self._restoring = None
        served_s = 0.0
        if self._state == "serving":
            served_s, self._since_s = now_s - self._since_s, now_s
        self._state = "restarting"
        pause_s = self._backoff.failed(served_s)
        self._next_s = now_s + pause_s
        number = self._backoff.num_failures
        _log.error("the worker of %s: %s; start %d in %.0f s", name, cause, number, pause_s)

    def _close_backend(self) -> None:
        backend, self._backend = self._backend, None
        if backend is not None:
            backend.close()


def _discard(replacement: Replacement) -> None:
    if replacement.built is not None:
        replacement.built[0].close()
        replacement.built = None


def _difference(old: BackendInfo, new: BackendInfo) -> str | None:
    """Why contexts cannot go on on the new one."""
    for name in ("revision", "vocab_size", "eos_tokens", "max_context", "page_size"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            return (
                f"{old.name} was loaded with {name} {before}, and now has {after}: its contexts "
                "are bound to what was loaded; bring that back, or restart the daemon"
            )
    return None
