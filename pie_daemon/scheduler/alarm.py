"""What wakes the scheduler's thread: from its sleep, and out of a burst."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pie_backend.base import Backend, Tell
from pie_backend.batch import Batch, BatchResult


class Alarm(threading.Event):
    """An event that also interrupts the batch that is being computed, if that is a burst."""

    def __init__(self) -> None:
        super().__init__()
        self._interrupt: Callable[[], None] | None = None

    def set(self) -> None:
        super().set()
        interrupt, self._interrupt = self._interrupt, None  # once is enough
        if interrupt is not None:
            interrupt()

    def compute(self, backend: Backend, batch: Batch, tell: Tell) -> BatchResult:
        with self.ends(batch, backend.interrupt):
            return backend.execute_telling(batch, tell) if batch.told else backend.execute(batch)

    @contextmanager
    def ends(self, batch: Batch, interrupt: Callable[[int], None]) -> Iterator[None]:
        """While the batch is computed; what was set after it was decided ends it as well.

        `interrupt` is the backend's.
        """
        if batch.passes > 1:
            self._interrupt = lambda: interrupt(batch.step)
            if self.is_set():
                self.set()
        try:
            yield
        finally:
            self._interrupt = None
