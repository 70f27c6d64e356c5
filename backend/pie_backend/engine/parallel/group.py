"""A team over torch.distributed: gloo between processes, on the loopback interface.

The process group is used as an object and not through torch's global one, so that a process may
be in several teams, one for each of its models.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from pie_backend.base import RankLost

_PATIENCE = timedelta(minutes=2)
"""Ranks do the same work at the same time; who is so late has stopped."""
_LOOPBACK = "127.0.0.1"
_FEW_BYTES = 1 << 20


class Group:
    """Implements `Team`."""

    def __init__(self, group: Any, rank: int, size: int, device: str = "cpu") -> None:
        self._group = group
        self._device = device
        self.rank = rank
        self.size = size

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        _finish(lambda: self._group.allreduce([x]))
        return x

    def gather(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = x.contiguous()
        parts = [torch.empty_like(x) for _ in range(self.size)]
        _finish(lambda: self._group.allgather([parts], [x]))
        return parts

    def least(self, number: int) -> int:
        least = torch.tensor([number], dtype=torch.int64, device=self._device)
        options = dist.AllreduceOptions()
        options.reduceOp = dist.ReduceOp(dist.ReduceOp.MIN)
        _finish(lambda: self._group.allreduce([least], options))
        return int(least)


class LoopbackGroup(Group):
    """Ranks on one machine, where to be woken up costs more than what there is to send."""

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        if x.nbytes * (self.size - 1) > _FEW_BYTES:
            return super().sum(x)
        # Everybody sends all to everybody at once, and adds in the order of ranks.
        first, *others = self.gather(x)
        for other in others:
            first += other
        return first


def _finish(start: Callable[[], Any]) -> None:
    try:
        start().wait()
    except RuntimeError as error:
        raise RankLost(f"another rank is gone or stands still: {error}") from error


def join(meeting: str, rank: int, size: int) -> Group:
    """Blocks until all ranks have come to the file that `meeting` names.

    Raises: RankLost.
    """
    options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    options._devices = [dist.ProcessGroupGloo.create_device(hostname=_LOOPBACK)]
    options._timeout = _PATIENCE
    options._threads = 1
    try:
        store = dist.FileStore(meeting, size)  # type: ignore[attr-defined]
        store.set_timeout(_PATIENCE)
        return LoopbackGroup(dist.ProcessGroupGloo(store, rank, size, options), rank, size)
    except RuntimeError as error:
        raise RankLost(f"the ranks could not meet: {error}") from error
