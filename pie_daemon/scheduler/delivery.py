"""What a batch brought, whether it answers what was asked, and what all of them came to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from pie_backend.base import BackendError
from pie_backend.batch import Batch, BatchResult, Logprobs, Probed, Row
from pie_daemon.scheduler.page_jobs import PageJob
from pie_daemon.scheduler.request import Request


@dataclass(slots=True)
class Counters:
    """Since the start."""

    steps: int = 0
    rows: int = 0
    computed_tokens: int = 0
    generated_tokens: int = 0
    wanted_tokens: int = 0
    """That admitted requests had to have computed."""
    found_tokens: int = 0
    """Those of them whose KV was in cached or shared pages."""
    drafted_tokens: int = 0
    """Guesses that were verified."""
    accepted_tokens: int = 0
    """Those of them that became generated tokens."""

    preemptions: int = 0
    recomputed_tokens: int = 0
    """Of the computed ones: their KV was lost when their context was suspended, or the backend
    with it."""

    def count_cut(self, rows: Sequence[Row]) -> None:
        """A batch leaves."""
        self.steps += 1
        self.rows += len(rows)
        self.computed_tokens += sum([len(row.tokens) for row in rows])

    def count_made(self, result: BatchResult, batch: Batch, goes_on: bool) -> None:
        """What a burst computes beyond the pass that was counted when it left: the passes that are
        there now, or the one that comes after them."""
        if batch.passes > 1:
            self.computed_tokens += sum([len(tokens) - 1 + goes_on for tokens in result.tokens])

    def count_found(self, request: Request) -> None:
        """It is admitted for the first time, with what is there of its context."""
        num_found = request.context.num_computed - request.cached_tokens
        self.wanted_tokens += request.prompt_tokens - request.cached_tokens
        self.found_tokens += num_found
        request.cached_tokens += num_found
        request.context.owner.cached_tokens += num_found

    @property
    def prefix_hit_rate(self) -> float:
        return self.found_tokens / self.wanted_tokens if self.wanted_tokens else 0.0

    @property
    def draft_acceptance(self) -> float:
        return self.accepted_tokens / self.drafted_tokens if self.drafted_tokens else 0.0


@dataclass(slots=True)
class Delivery:
    """What one batch brought."""

    first: list[int] = field(default_factory=list)
    """Requests that have something to take for the first time: a person waits for a first token,
    or the next batch for a program that asks pass by pass."""
    later: list[int] = field(default_factory=list)
    """Other requests that have something to take."""
    tokens: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    """New tokens by owner."""
    ended: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Requests that have come to their end by owner."""
    by_passes: set[str] = field(default_factory=set)
    """Owners of passes and flushes among them, which are parts of something that goes on."""

    @property
    def ready(self) -> list[int]:
        """Requests that have something to take, in the order in which to say so: their programs
        go one after the other."""
        return self.first + self.later

    def add(self, request: Request, num_new: int) -> None:
        """It has something to take, with so many new tokens."""
        is_first = request.num_drawn == num_new
        (self.first if is_first else self.later).append(request.id)


@dataclass(slots=True)
class Lost:
    """What the end of a backend brought to its end."""

    requests: list[int] = field(default_factory=list)
    """Failed; all others wait for the next backend."""
    jobs: list[PageJob] = field(default_factory=list)
    convicted: bool = False
    """One of the requests was what killed it."""


Answer = tuple[list[int], Sequence[Logprobs | None], Sequence[Probed]]
"""To one row: drawn tokens, a log probability for each or None, what the probes saw."""


def rest_of(batch: Batch) -> Batch:
    """Of a burst, once a pass of it is there."""
    return msgspec.structs.replace(batch, passes=batch.passes - 1)


def answers(result: BatchResult, batch: Batch) -> list[Answer]:
    """Row by row. Raises: BackendError: it is the answer to something else."""
    rows, tokens = batch.rows, result.tokens
    logprobs: Sequence[Sequence[Logprobs | None]] = result.logprobs or [
        (None,) * len(drawn) for drawn in tokens
    ]
    probes: Sequence[Sequence[Probed]] = result.probes or [()] * len(tokens)
    lengths = {len(tokens), len(logprobs), len(probes)}
    if result.step != batch.step or lengths != {len(rows)}:
        raise BackendError(f"the backend answered step {result.step} with the wrong rows")
    passes = _num_passes(result, batch)
    num_samples = [len(row.samples) * passes for row in rows]
    if num_samples != [*map(len, tokens)] or num_samples != [*map(len, logprobs)]:
        raise BackendError("the backend's answers do not match the samples of a row")
    if [len(row.probes) for row in rows] != [*map(len, probes)]:
        raise BackendError("the backend's answers do not match the probes of a row")
    _check_logprobs(result, batch, passes)
    return list(zip(tokens, logprobs, probes, strict=True))


def _num_passes(result: BatchResult, batch: Batch) -> int:
    if batch.passes == 1:
        return 1
    passes = max(len(tokens) for tokens in result.tokens)
    if not 1 <= passes <= batch.passes:
        raise BackendError(f"the backend made {passes} passes of {batch.passes}")
    return passes


def _check_logprobs(result: BatchResult, batch: Batch, passes: int) -> None:
    asked = [[sample.sampling.logprobs is not None for sample in row.samples] for row in batch.rows]
    if not result.logprobs:
        matches = not any(map(any, asked))
    else:
        given = [[one is not None for one in ones] for ones in result.logprobs]
        matches = given == [ones * passes for ones in asked]
    if not matches:
        raise BackendError("the backend's logprobs do not match the samples that asked")
