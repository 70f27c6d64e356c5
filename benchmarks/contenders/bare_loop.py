"""The engine with nothing around it: what everything above it is measured against."""

from __future__ import annotations

import time
from itertools import accumulate, pairwise
from pathlib import Path

from benchmarks.load import Load, Timing
from pie_backend.base import Backend
from pie_backend.batch import BackendConfig, Batch, Row, Sample, Sampling
from pie_backend.create import create_backend

PAGE_SIZE = 16


def pages_for(num_tokens: int) -> int:
    return -(-num_tokens // PAGE_SIZE)


class BareLoop:
    """Feeds the backend the batches that a scheduler would. Everything comes at once."""

    def __init__(
        self,
        directory: Path,
        kv_pages: int,
        placement: str = "inline",
        tensor_parallel: int = 1,
        device: str = "auto",
    ) -> None:
        config = BackendConfig(
            name="bench",
            path=str(directory),
            placement=placement,
            device=device,
            page_size=PAGE_SIZE,
            kv_pages=kv_pages,
            tensor_parallel=tensor_parallel,
        )
        self._backend: Backend = create_backend(config)

    def run(self, load: Load) -> Timing:
        begun = time.perf_counter()
        first_s = 0.0
        made: list[list[int]] = [[] for _ in load.prompts]
        rows = self._rows(load)
        for step in range(load.new_tokens):
            drawn = self._backend.execute(Batch(step, rows)).tokens
            first_s = first_s or time.perf_counter() - begun
            rows = [_next(row, token) for row, token in zip(rows, drawn, strict=True)]
            for tokens, token in zip(made, drawn, strict=True):
                tokens += token
        seconds = time.perf_counter() - begun
        num = len(load.prompts)
        return Timing(seconds, [len(t) for t in made], [first_s] * num, [seconds] * num)

    def _rows(self, load: Load) -> list[Row]:
        counts = [pages_for(len(prompt) + load.new_tokens) for prompt in load.prompts]
        tables = [list(range(*pair)) for pair in pairwise(accumulate(counts, initial=0))]
        return [
            Row(prompt, 0, table, [Sample(len(prompt) - 1, Sampling())])
            for prompt, table in zip(load.prompts, tables, strict=True)
        ]

    def close(self) -> None:
        self._backend.close()


def _next(row: Row, token: list[int]) -> Row:
    return Row(token, row.start + len(row.tokens), row.pages, [Sample(0, Sampling())])
