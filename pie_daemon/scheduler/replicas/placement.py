"""Which replica gets a context: where its beginning is known, unless that one is too busy. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

FAR = 4
"""A fork leaves its parent's pages behind when the imbalance is so many times what a prompt that
is known elsewhere puts up with: it costs computing them again."""
_MAX_KEYS = 1 << 16


class Routed:
    """Where contexts with which beginnings went lately: their pages come to be there, though
    perhaps nothing is computed yet. Bounded; the least recently used is forgotten first."""

    def __init__(self, max_keys: int = _MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._replicas: OrderedDict[bytes, int] = OrderedDict()

    def num_known(self, keys: Sequence[bytes], replica: int) -> int:
        for number, key in enumerate(keys):
            if not self._replicas.get(key, 0) >> replica & 1:
                return number
        return len(keys)

    def add(self, keys: Sequence[bytes], replica: int) -> None:
        for key in keys:
            self._replicas[key] = self._replicas.get(key, 0) | 1 << replica
            self._replicas.move_to_end(key)
        while len(self._replicas) > self._max_keys:
            self._replicas.popitem(last=False)


class PrefixAware:
    """The longest known beginning wins among the replicas that have at most `slack` more live
    requests than the least busy one; of equals the least busy, then the one that waited longest."""

    def __init__(self, num_replicas: int, slack: int) -> None:
        self._slack = slack
        self._turns = [0] * num_replicas
        self._turn = 0

    def choose(self, known: Sequence[int], loads: Sequence[int | None]) -> int:
        """`known`: pages of the beginning, `loads`: live requests, None: it does not compute. When
        none does, the first one is to say why."""
        alive = [number for number, load in enumerate(loads) if load is not None]
        if not alive:
            return 0
        least = self._least(loads)
        allowed = [number for number in alive if (loads[number] or 0) <= least + self._slack]
        chosen = min(
            allowed, key=lambda number: (-known[number], loads[number], self._turns[number])
        )
        self._turn += 1
        self._turns[chosen] = self._turn
        return chosen

    def is_far_off(self, replica: int, loads: Sequence[int | None]) -> bool:
        """It is so much busier than another one that a fork had better go there; or it is dead."""
        load = loads[replica]
        if load is None:
            return any(other is not None for other in loads)
        return load > self._least(loads) + FAR * max(1, self._slack)

    @staticmethod
    def _least(loads: Sequence[int | None]) -> int:
        return min((load for load in loads if load is not None), default=0)
