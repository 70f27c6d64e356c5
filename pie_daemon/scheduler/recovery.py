"""From one backend to the next: contexts fall to their journals, adapters are loaded again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from threading import Lock

from pie_backend.base import BackendError
from pie_backend.batch import BackendInfo
from pie_daemon.scheduler.adapters import Adapters
from pie_daemon.scheduler.state import SchedulerState
from pie_daemon.scheduler.worker import Worker

_log = logging.getLogger(__name__)

Tell = Callable[[Iterable[int]], None]


class Recovery:
    """Of the scheduler's thread alone. It holds no lock while it waits."""

    def __init__(
        self, worker: Worker, state: SchedulerState, adapters: Adapters, lock: Lock, tell: Tell
    ) -> None:
        """`tell` is called, without the lock, about requests that have failed."""
        self._worker = worker
        self._state = state
        self._adapters = adapters
        self._lock = lock
        self._tell = tell

    def after(self, error: BackendError) -> None:
        """The backend has died. Raises: that error, when there will be no other one."""
        self._worker.bury(error)
        if self._lose(self._state.info, str(error)):
            self._worker.forgive()
        self._go_on()

    def replace(self) -> None:
        """Somebody has asked for another backend."""
        self._worker.retire()
        self._lose(self._state.info, "the backend was replaced")
        self._go_on()

    def _go_on(self) -> None:
        while (backend := self._worker.next()) is not None:
            try:
                lost = self._adapters.reload(backend)
            except BackendError as error:
                self._worker.bury(error)
                continue
            for reason in lost.values():
                _log.error("%s: %s", self._state.info.name, reason.message)
            self._lose(backend.info, "the backend was started again")
            with self._lock:
                failed = self._state.lose_adapters(lost)
            self._tell(failed)
            self._worker.settle()
            return

    def _lose(self, info: BackendInfo, cause: str) -> bool:
        """Whether it is known by now what killed the backend."""
        with self._lock:
            lost = self._state.lose_backend(info, cause)
        self._tell(lost.requests)
        for job in lost.jobs:
            job.notify()
        return lost.convicted
