"""The one protocol between the scheduler and whatever computes."""

from __future__ import annotations

from typing import Protocol

from pie_backend.batch import BackendInfo, Batch, BatchResult


class BackendError(Exception):
    """The backend cannot be built or has died; the message says what to do."""


class Backend(Protocol):
    """Executes batches one at a time, from one thread. It has no policy of its own."""

    @property
    def info(self) -> BackendInfo: ...

    def execute(self, batch: Batch) -> BatchResult:
        """Runs one forward pass and blocks until it is done.

        Raises:
            BackendError: the backend died; no later call can succeed.
        """
        ...

    def close(self) -> None:
        """Frees memory and ends the worker process, if there is one. May be called twice."""
        ...
