"""What the scheduler itself takes between two batches: its thread over the dummy backend.

From the end of one batch to the beginning of the next: what was drawn is taken in, programs are
woken, the next rows are chosen and get their pages. Programs are callbacks that do nothing. Garbage
is searched for as seldom as in the daemon.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import msgspec

from benchmarks import pictures
from benchmarks.question import Answer
from benchmarks.rounds import say
from benchmarks.targets import Target
from pie_backend.base import Backend, Tell
from pie_backend.batch import (
    AdapterInfo,
    Adjustment,
    BackendConfig,
    BackendInfo,
    Batch,
    BatchResult,
    Sampling,
)
from pie_backend.dummy import DummyBackend
from pie_daemon.daemon import settle_memory
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.service import Scheduler
from support.stepping import letters

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROMPT_TOKENS = 200
MAX_BATCH_TOKENS = 2048
ROWS = (1, 4, 16, 64, 128, 256)
EXPECTED_US = 2000
"""At 256 rows."""
WHOLE = "everything at the end"
KINDS = {
    WHOLE: GenerateParams(chunk_tokens=0),
    "token by token": GenerateParams(),
    "sampled, two stop strings": GenerateParams(
        Sampling(temperature=0.8, top_p=0.9, seed=1), stop_strings=("\n\n", "User:")
    ),
    "five log probabilities": GenerateParams(Sampling(logprobs=5)),
    "penalties": GenerateParams(
        Sampling(adjustment=Adjustment(repetition_penalty=1.1, frequency_penalty=0.1))
    ),
}


class Between:
    """A backend that notes how long nobody has asked it for anything."""

    def __init__(self, backend: Backend, num_rows: int, num_steps: int) -> None:
        self._backend = backend
        self._num_rows = num_rows
        self._num_steps = num_steps
        self._ended: float | None = None
        self.gaps_us: list[float] = []
        """Between two batches with all rows, each of one token."""
        self.done = threading.Event()

    @property
    def info(self) -> BackendInfo:
        return self._backend.info

    def execute(self, batch: Batch) -> BatchResult:
        begun = time.perf_counter()
        decodes = [len(row.tokens) for row in batch.rows] == [1] * self._num_rows
        if self._ended is not None and decodes:
            self.gaps_us.append((begun - self._ended) * 1e6)
        if len(self.gaps_us) == self._num_steps:
            self.done.set()
        result = self._backend.execute(batch)
        self._ended = time.perf_counter() if decodes else None
        return result

    def execute_telling(self, batch: Batch, tell: Tell) -> BatchResult:
        """One pass, since the question is what lies between two of them."""
        return self.execute(msgspec.structs.replace(batch, passes=1))

    def interrupt(self, step: int) -> None:
        self._backend.interrupt(step)

    def load_adapter(self, path: str) -> AdapterInfo:
        return self._backend.load_adapter(path)

    def unload_adapter(self, digest: str) -> None:
        self._backend.unload_adapter(digest)

    def close(self) -> None:
        self._backend.close()


class SchedulerStep:
    name = "scheduler_step"

    def answer(self, *, quick: bool) -> Answer:
        rows = (1, 16, 256) if quick else ROWS
        num_steps = 40 if quick else 200
        settle_memory()
        measured: dict[str, dict[int, list[float]]] = {kind: {} for kind in KINDS}
        for num_rows in rows:
            for kind, params in KINDS.items():
                measured[kind][num_rows] = between_batches_us(params, num_rows, num_steps)
                say(
                    f"  {self.name}, {num_rows} rows, {kind}: {measured[kind][num_rows][-1]:.0f} us"
                )
        return _answer(measured)


def between_batches_us(params: GenerateParams, num_rows: int, num_steps: int) -> list[float]:
    pages = num_rows * (PROMPT_TOKENS + _num_tokens(num_rows, num_steps)) // 8
    dummy = DummyBackend(BackendConfig(name="dummy", kind="dummy", path="", kv_pages=pages))
    backend = Between(dummy, num_rows, num_steps)
    drive(backend, params, num_rows, num_steps)
    return backend.gaps_us


def drive(backend: Between, params: GenerateParams, num_rows: int, num_steps: int) -> None:
    """Decodes so many rows until they have been together in so many batches."""
    scheduler = Scheduler(
        backend, letters, SchedulerConfig(max_batch_tokens=MAX_BATCH_TOKENS, max_burst=1)
    )
    num_tokens = _num_tokens(num_rows, num_steps)
    params = replace(params, max_tokens=num_tokens, ignore_eos=True)
    for number in range(num_rows):
        context = scheduler.create_context(f"program-{number}")
        scheduler.append(context, [(7 * number + at) % 500 for at in range(PROMPT_TOKENS)])
        scheduler.generate(context, params, lambda: None)
    scheduler.start()
    assert backend.done.wait(120), "the batches never had all rows"
    scheduler.stop()


def _num_tokens(num_rows: int, num_steps: int) -> int:
    """Prompts are computed one after another, and until then the batches are not whole."""
    return num_steps + 2 * num_rows * PROMPT_TOKENS // MAX_BATCH_TOKENS + 8


def _answer(measured: dict[str, dict[int, list[float]]]) -> Answer:
    medians = {
        kind: {rows: median(gaps) for rows, gaps in by_rows.items()}
        for kind, by_rows in measured.items()
    }
    most = max(medians[WHOLE])
    slow = {kind: by_rows[most] for kind, by_rows in medians.items() if by_rows[most] > EXPECTED_US}
    beyond = "; ".join(f"{kind}: {us:,.0f}" for kind, us in slow.items())
    return Answer(
        title="Microseconds of the scheduler between two batches, by their rows (medians)",
        columns=["requests", *(f"{rows} rows" for rows in medians[WHOLE])],
        rows=[[kind, *(f"{us:,.0f}" for us in by.values())] for kind, by in medians.items()],
        measured=measured,
        notes=[
            "Nobody else runs; the backend is the dummy one, whose own time does not count.",
            f"Expected: at most {EXPECTED_US:,}. Beyond that: {beyond or 'nothing'}.",
        ],
        targets=[
            Target(f"{most} rows, {kind}", by_rows[most], EXPECTED_US, "us", "at most")
            for kind, by_rows in medians.items()
        ],
        draw=partial(_draw, medians),
    )


def _draw(medians: dict[str, dict[int, float]], figure: Figure) -> None:
    axis = figure.subplots()
    pictures.curves(axis, medians, "rows of the batch", "us between two batches")
    axis.axhline(EXPECTED_US, color=pictures.GREY, linewidth=1, linestyle=":")
