"""Ended instances that are still kept, for clients that have not taken their events yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pie_daemon.runtime.instance import Instance

_MAX_CHILDREN = 256
"""Their parents have their own reference, so these are only for a curious user."""


class Finished:
    """In the order of their ends, so that whoever launches looks at none that stays.

    The lock is the caller's.
    """

    def __init__(self) -> None:
        self._launched: deque[Instance] = deque()
        self._children: deque[Instance] = deque()

    def add(self, instance: Instance) -> None:
        """It ends now."""
        (self._children if instance.launch.depth else self._launched).append(instance)

    def discard(self, instance: Instance) -> None:
        """It never began."""
        (self._children if instance.launch.depth else self._launched).remove(instance)

    def forget(self, keep_s: float, most: int) -> Iterator[Instance]:
        """Those that ended longer ago, and the first of those that are more; not kept any more."""
        for kept, num_kept in ((self._launched, most), (self._children, _MAX_CHILDREN)):
            while kept and kept[0].done:
                if len(kept) <= num_kept and kept[0].finished_for_s <= keep_s:
                    break
                yield kept.popleft()
