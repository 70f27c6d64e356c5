"""Several passes for one batch, over a backend that computes one at a time."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from pie_backend.base import SinglePasses, Tell
from pie_backend.batch import AdapterInfo, BackendInfo, Batch, BatchResult


class Bursts:
    """Implements `Backend`. It draws what the scheduler would have had drawn, pass by pass."""

    def __init__(
        self, backend: SinglePasses, interrupted: Callable[[], bool] | None = None
    ) -> None:
        """`interrupted` is asked between passes, besides whether `interrupt` was called."""
        self._backend = backend
        self._asks = interrupted or (lambda: False)
        self._cut: int | None = None

    @property
    def info(self) -> BackendInfo:
        return self._backend.info

    def execute(self, batch: Batch) -> BatchResult:
        if batch.passes == 1:
            return self._backend.execute(batch)
        before: list[BatchResult] = []
        last = self.execute_telling(batch, before.append)
        if not before:
            return last
        made, *others = before
        for result in (*others, last):
            _add(made, result)
        return made

    def execute_telling(self, batch: Batch, tell: Tell) -> BatchResult:
        first = msgspec.structs.replace(batch, passes=1)
        result = self._backend.execute(first)
        for number in range(1, batch.passes):
            if self._cut == batch.step or _ends(result, batch.until) or self._asks():
                break
            tell(result)
            result = self._backend.follow(first, number, result.tokens)
        return result

    def interrupt(self, step: int) -> None:
        self._cut = step

    def load_adapter(self, path: str) -> AdapterInfo:
        return self._backend.load_adapter(path)

    def unload_adapter(self, digest: str) -> None:
        self._backend.unload_adapter(digest)

    def close(self) -> None:
        self._backend.close()


def _ends(result: BatchResult, until: list[int]) -> bool:
    return bool(until) and any(row[0] in until for row in result.tokens)


def _add(made: BatchResult, result: BatchResult) -> None:
    for row, tokens in zip(made.tokens, result.tokens, strict=True):
        row += tokens
    for ones, more in zip(made.logprobs, result.logprobs, strict=True):
        ones += more
