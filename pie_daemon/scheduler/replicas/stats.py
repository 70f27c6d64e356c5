"""What several replicas tell together."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pie_daemon.scheduler.stats import SchedulerStats, WorkerStats

_OWN = ("model", "owners", "adapters", "failure", "integrity_error", "replicas")
_RATES = ("prefix_hit_rate", "draft_acceptance")


def together(replicas: Sequence[SchedulerStats], num_unplaced: int) -> SchedulerStats:
    """Sums, and each replica by itself. `num_unplaced`: contexts that are on none yet."""
    first = replicas[0]
    changes: dict[str, object] = {
        name: sum(getattr(one, name) for one in replicas)
        for name in first.__struct_fields__
        if name not in _OWN and name not in _RATES and isinstance(getattr(first, name), int | float)
    }
    changes["contexts"] = sum(one.contexts for one in replicas) + num_unplaced
    changes["prefix_hit_rate"] = _hit_rate(replicas)
    changes["draft_acceptance"] = _acceptance(replicas)
    changes["worker"] = _worker(replicas)
    changes["failure"] = _failure(replicas)
    errors = [_named(i, one.integrity_error) for i, one in enumerate(replicas)]
    changes["integrity_error"] = next(filter(None, errors), None)
    changes["replicas"] = tuple(replicas)
    return msgspec.structs.replace(first, **changes)


def _hit_rate(replicas: Sequence[SchedulerStats]) -> float:
    wanted = sum(one.wanted_tokens for one in replicas)
    return sum(one.found_tokens for one in replicas) / wanted if wanted else 0.0


def _acceptance(replicas: Sequence[SchedulerStats]) -> float:
    drafted = sum(one.drafted_tokens for one in replicas)
    accepted = sum(one.drafted_tokens * one.draft_acceptance for one in replicas)
    return accepted / drafted if drafted else 0.0


def _failure(replicas: Sequence[SchedulerStats]) -> str | None:
    """As long as one computes, the model does; `replicas` tells of the others."""
    if any(one.failure is None for one in replicas):
        return None
    return replicas[0].failure


def _worker(replicas: Sequence[SchedulerStats]) -> WorkerStats:
    """One that serves, if any does, with the deaths of all."""
    workers = [one.worker for one in replicas]
    shown = next((worker for worker in workers if worker.state == "serving"), workers[0])
    causes = [worker.last_cause for worker in workers if worker.last_cause is not None]
    return msgspec.structs.replace(
        shown,
        deaths=sum(worker.deaths for worker in workers),
        last_cause=causes[-1] if causes else None,
        last_pause_s=max(worker.last_pause_s for worker in workers),
    )


def _named(number: int, trouble: str | None) -> str | None:
    return None if trouble is None else f"replica {number}: {trouble}"
