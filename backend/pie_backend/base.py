"""The one protocol between the scheduler and whatever computes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from pie_backend.batch import AdapterInfo, BackendInfo, Batch, BatchResult, Row


class BackendError(Exception):
    """The backend cannot be built or has died; the message says what to do."""


class RankLost(BackendError):
    """This rank can compute nothing more because another is gone, which has the reason."""


class AdapterError(Exception):
    """An adapter cannot be loaded; the backend goes on without it."""

    def __init__(self, code: str, message: str, *, no_room: bool = False) -> None:
        super().__init__(message)
        self.code = code
        """One of the codes of docs/errors.md."""
        self.message = message
        self.no_room = no_room
        """It would fit if others were unloaded."""


Tell = Callable[[BatchResult], None]
"""Gets what one pass of a burst has made; the burst goes on meanwhile."""


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

    def execute_telling(self, batch: Batch, tell: Tell) -> BatchResult:
        """The same of a burst, but that every pass is told on this thread as it comes. The last one
        is not: it is what is returned."""
        ...

    def interrupt(self, step: int) -> None:
        """Ends the burst of that batch after the pass at hand, or after its first one if it is yet
        to come. From any thread; for a batch that is over it does nothing."""
        ...

    def load_adapter(self, path: str) -> AdapterInfo:
        """Makes the adapter in a folder known to rows, by its digest; once for equal content.

        Raises:
            AdapterError: it cannot be used, or has no room beside the others.
            BackendError: the backend died.
        """
        ...

    def unload_adapter(self, digest: str) -> None:
        """Frees its memory; no later row may name it. An unknown one is fine."""
        ...

    def close(self) -> None:
        """Frees memory and ends the worker process, if there is one. May be called twice."""
        ...


class SinglePasses(ABC):
    """Implements `Backend` for those that make one pass of every batch: nothing is left to
    interrupt, and a burst is the affair of whoever asks them to `follow`."""

    @property
    @abstractmethod
    def info(self) -> BackendInfo: ...

    @abstractmethod
    def execute(self, batch: Batch) -> BatchResult: ...

    def follow(self, batch: Batch, number: int, drawn: list[list[int]]) -> BatchResult:
        """Pass `number` of the burst whose pass 0 was that batch, the last one executed. Each row
        goes on with the token that pass `number - 1` has drawn for it."""
        rows = [_following(row, number, one) for row, one in zip(batch.rows, drawn, strict=True)]
        return self.execute(Batch(batch.step, rows))

    def execute_telling(self, batch: Batch, tell: Tell) -> BatchResult:
        return self.execute(batch)

    def interrupt(self, step: int) -> None:
        return

    @abstractmethod
    def load_adapter(self, path: str) -> AdapterInfo: ...

    @abstractmethod
    def unload_adapter(self, digest: str) -> None: ...

    @abstractmethod
    def close(self) -> None: ...


def _following(row: Row, number: int, drawn: list[int]) -> Row:
    return Row(
        drawn, row.start + number, row.pages, [row.samples[0].later(number)], adapter=row.adapter
    )
