"""What one launch may use: the operator's limits or the parent's grants, cut by the manifest and
by the budgets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from pie_bakery.manifest import Manifest
from pie_daemon.runtime.config import LimitsConfig
from pie_daemon.runtime.outcome import Budgets

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, slots=True)
class Grants:
    """None is without limit."""

    memory_bytes: int
    cpu_s: float | None
    deadline_s: float | None
    """Wall time from the launch."""
    tokens: int | None
    kv_pages: int | None
    priority_max: int = 0
    http: tuple[tuple[str, ...], ...] = ()
    """Rules of the manifests from the first program of the family down: all of them have to allow
    a host, and the operator's of the moment as well."""
    tools: tuple[tuple[str, ...], ...] = ()
    """Likewise for tools."""


def effective_grants(
    manifest: Manifest, budgets: Budgets, limits: LimitsConfig, parent: Grants | None = None
) -> Grants:
    """What a child shares with its parent beyond that is the affair of `family.Accounts`."""
    asked = manifest.grants
    priority_max = _least(limits.priority_max, asked.priority_max) or 0
    memory_bytes = (_least(limits.memory_mb, asked.memory_mb) or limits.memory_mb) << 20
    return Grants(
        memory_bytes=min(memory_bytes, parent.memory_bytes) if parent else memory_bytes,
        cpu_s=_least(limits.cpu_s, asked.cpu_s, budgets.max_cpu_s),
        deadline_s=budgets.deadline_s,
        tokens=budgets.max_tokens_total,
        kv_pages=budgets.max_kv_pages,
        http=(*(parent.http if parent else ()), asked.http),
        tools=(*(parent.tools if parent else ()), asked.tools),
        priority_max=min(priority_max, parent.priority_max) if parent else priority_max,
    )


def _least(*values: _Number | None) -> _Number | None:
    return min((value for value in values if value is not None), default=None)
