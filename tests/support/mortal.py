"""Worker processes that are killed at a chosen point of a chosen batch."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Literal

import msgspec

from pie_backend.base import Tell
from pie_backend.batch import AdapterInfo, BackendConfig, BackendInfo, Batch, BatchResult
from pie_backend.lifeline import Lifeline
from pie_backend.process import ProcessBackend

Moment = Literal["before", "during", "after", "between"]
"""`before`: the batch finds the worker dead. `during`: it has the batch and does not answer.
`after`: it has computed the batch, and the answer is lost. `between`: the answer arrives."""
MOMENTS: tuple[Moment, ...] = ("before", "during", "after", "between")


class Fate:
    """Counts the batches of all workers that it builds, and ends one at each batch in `deaths`."""

    def __init__(self, config: BackendConfig, moment: Moment = "during") -> None:
        self.config = config
        self.moment = moment
        self.num_batches = 0
        self.deaths: Collection[int] = ()
        self.kills: Callable[[Batch], bool] = lambda batch: False
        """A batch that no worker survives."""
        self.pids: list[int] = []

    def build(self, lifeline: Lifeline) -> Mortal:
        return self._build(self.config, lifeline)

    def changed(self, **settings: Any) -> Callable[[Lifeline], Mortal]:
        """A builder of other workers with the same fate."""
        return partial(self._build, msgspec.structs.replace(self.config, **settings))

    def _build(self, config: BackendConfig, lifeline: Lifeline) -> Mortal:
        worker = Mortal(ProcessBackend(config, lifeline), self)
        self.pids.append(worker.inner.pid)
        return worker

    def moment_of(self, batch: Batch) -> Moment | None:
        self.num_batches += 1
        if self.kills(batch):
            return "during"
        return self.moment if self.num_batches in self.deaths else None


class Mortal:
    """A backend in a worker process, and its fate."""

    def __init__(self, inner: ProcessBackend, fate: Fate) -> None:
        self.inner = inner
        self._fate = fate

    @property
    def info(self) -> BackendInfo:
        return self.inner.info

    def execute(self, batch: Batch) -> BatchResult:
        return self._execute(batch, self.inner.execute)

    def execute_telling(self, batch: Batch, tell: Tell) -> BatchResult:
        return self._execute(batch, partial(self.inner.execute_telling, tell=tell))

    def _execute(self, batch: Batch, compute: Callable[[Batch], BatchResult]) -> BatchResult:
        match self._fate.moment_of(batch):
            case None:
                return compute(batch)
            case "before":
                kill(self.inner.pid)
                return compute(batch)
            case "during":
                return self._execute_dying(batch, compute)
            case "after":
                compute(batch)
                kill(self.inner.pid)
                return compute(batch)
            case "between":
                result = compute(batch)
                kill(self.inner.pid)
                return result

    def _execute_dying(self, batch: Batch, compute: Callable[[Batch], BatchResult]) -> BatchResult:
        os.kill(self.inner.pid, signal.SIGSTOP)
        channel = self.inner._channel
        receive = channel.receive

        def killing() -> bytearray | None:
            kill(self.inner.pid)
            return receive()

        channel.receive = killing  # type: ignore[method-assign]
        return compute(batch)

    def load_adapter(self, path: str) -> AdapterInfo:
        return self.inner.load_adapter(path)

    def interrupt(self, step: int) -> None:
        self.inner.interrupt(step)

    def unload_adapter(self, digest: str) -> None:
        self.inner.unload_adapter(digest)

    def close(self) -> None:
        self.inner.close()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
