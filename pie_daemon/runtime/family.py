"""What a program and the programs it launches have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pie_daemon.host.stop import CpuMeter
from pie_daemon.runtime.budget import SharedTokens
from pie_daemon.runtime.grants import Grants


@dataclass(slots=True)
class Family:
    """Everything that descends from one launch by a client."""

    root: str
    """Id of that launch's instance."""
    num_children: int = 0
    """Running ones, at any depth. Belongs to the supervisor's lock."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """What an instance spends from. A child's draw on its parent's, also once it is detached."""

    tokens: SharedTokens
    cpu: CpuMeter
    kv_pages: Mapping[str, int]
    """By id of this instance or of an ancestor: the pages it may hold together with what it
    launches."""

    @classmethod
    def open(cls, instance_id: str, grants: Grants, parent: Accounts | None) -> Accounts:
        own = {} if grants.kv_pages is None else {instance_id: grants.kv_pages}
        if parent is None:
            return cls(SharedTokens(grants.tokens), CpuMeter(grants.cpu_s), own)
        return cls(
            SharedTokens(grants.tokens, parent.tokens),
            CpuMeter(grants.cpu_s, parent.cpu),
            {**parent.kv_pages, **own},
        )

    def left(self) -> dict[str, float | None]:
        """Under the names of a launch's budgets; None without a limit."""
        return {
            "max_tokens_total": self.tokens.left(),
            "max_cpu_s": self.cpu.left_s(),
            "max_kv_pages": min(self.kv_pages.values(), default=None),
        }
