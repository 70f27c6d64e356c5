"""What the scheduler tells about itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from pie_daemon.scheduler.state import SchedulerState


class WorkerStats(msgspec.Struct, frozen=True):
    """What computes the batches, and how it fares."""

    state: Literal["serving", "restarting", "replacing", "ended"] = "serving"
    """`ended`: it died, and no other one can be built."""
    deaths: int = 0
    """Since the start."""
    attempt: int = 0
    """Of the restart that goes on: the how manyeth start in a row this is."""
    next_attempt_s: float = 0.0
    """Until then; 0 while it loads."""
    last_cause: str | None = None
    """What the last one died of, or why it could not start."""
    last_pause_s: float = 0.0
    """From the end of one to the moment when the next one served."""

    @property
    def trouble(self) -> str | None:
        """In words."""
        if self.state == "serving":
            return None
        if self.state == "ended":
            return self.last_cause
        if self.state == "replacing":
            return "the worker is being replaced"
        when = f"next in {self.next_attempt_s:.0f} s" if self.next_attempt_s else "loading"
        return f"restarting the worker, attempt {self.attempt}, {when}: {self.last_cause}"


class SchedulerStats(msgspec.Struct, frozen=True):
    """One moment; counters run since the start."""

    model: str
    owners: int
    contexts: int
    running_requests: int
    waiting_requests: int
    num_pages: int
    free_pages: int
    """What can be allocated at once, cached pages included."""
    cached_pages: int
    """Of the free ones: they keep content that requests may begin with, until they are needed."""
    adapters: int
    """Loaded, used or not."""
    adapter_bytes: int
    reserved_pages: int
    """Of the free ones: promised to running requests."""
    suspended_contexts: int
    """They hold no page until a request on them runs again."""
    host_pages: int
    """Room in host memory for what the pool cannot keep."""
    used_host_pages: int
    evicted_pages: int
    """Moved to host memory."""
    restored_pages: int
    """Moved back."""
    suspensions: int
    """Contexts that gave their pages up."""
    preemptions: int
    """Those of them that were generating; they go on later."""
    recomputed_tokens: int
    """Of the computed ones: those whose KV was lost to a suspension, or with a worker."""
    steps: int
    """Batches computed."""
    rows: int
    """Rows in all of them."""
    last_batch_rows: int
    last_batch_tokens: int
    computed_tokens: int
    generated_tokens: int
    found_tokens: int
    """Not computed, because their KV was in pages of other contexts or in cached ones."""
    wanted_tokens: int
    """All that admitted requests had to have computed."""
    prefix_hit_rate: float
    """The found among the wanted ones; 0 before the first."""
    drafted_tokens: int
    """Guessed by speculation and verified."""
    draft_acceptance: float
    """Those that became generated tokens among them; 0 before the first."""
    computed_tokens_per_s: float
    """Averaged over the last seconds, prompts included."""
    generated_tokens_per_s: float
    worker: WorkerStats
    failure: str | None
    """Why the backend computes no more; None while it does."""
    integrity_error: str | None
    """What the last proof of the page accounting found; a defect of the scheduler."""
    replicas: tuple[SchedulerStats, ...] = ()
    """Each by itself, where several workers compute one model; all others are sums then."""


def stats_of(state: SchedulerState, **others: Any) -> SchedulerStats:
    """With what the state machine does not know."""
    contexts, host, counters = state.contexts, state.contexts.host, state.counters
    return SchedulerStats(
        owners=len(state.owners),
        contexts=len(contexts),
        running_requests=len(state.running),
        waiting_requests=len(state.waiting),
        num_pages=contexts.pool.num_pages,
        free_pages=contexts.pool.num_free,
        cached_pages=contexts.pool.num_cached,
        reserved_pages=sum(request.num_reserved for request in state.running.values()),
        suspended_contexts=contexts.num_suspended,
        host_pages=host.num_slots,
        used_host_pages=host.num_used,
        evicted_pages=host.num_evicted,
        restored_pages=host.num_restored,
        suspensions=contexts.num_suspensions,
        preemptions=counters.preemptions,
        recomputed_tokens=counters.recomputed_tokens,
        steps=counters.steps,
        rows=counters.rows,
        computed_tokens=counters.computed_tokens,
        generated_tokens=counters.generated_tokens,
        found_tokens=counters.found_tokens,
        wanted_tokens=counters.wanted_tokens,
        prefix_hit_rate=counters.prefix_hit_rate,
        drafted_tokens=counters.drafted_tokens,
        draft_acceptance=counters.draft_acceptance,
        **others,
    )


class RateMeter:
    """Events per second with an exponentially fading memory."""

    def __init__(self, half_life_s: float = 5.0) -> None:
        self._decay_per_s = math.log(2) / half_life_s
        self._weight = 0.0
        self._at_s = 0.0

    def add(self, count: int, now_s: float) -> None:
        self._weight = self._faded(now_s) + count
        self._at_s = now_s

    def per_s(self, now_s: float) -> float:
        return self._faded(now_s) * self._decay_per_s

    def _faded(self, now_s: float) -> float:
        return self._weight * math.exp(-self._decay_per_s * (now_s - self._at_s))
