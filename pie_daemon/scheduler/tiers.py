"""The tier below the device: pages in host memory by the key of their content.

A cached page whose place on the device is needed moves here, as long as there is a slot; the page
that was moved longest ago makes room, but none that a waiting request wants. (Programs that take
turns would else drive out each other's pages just before they are used.) What is not here any more
is computed again. A page is on the device or here, never at both: bringing it back empties its
slot.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable

from pie_daemon.scheduler.pages import IntegrityError


class HostTier:
    """Slots [0, num_slots), and the copies that the next batch begins with.

    A batch does all its `evict` copies before its `restore` copies. So a slot that is read in a
    batch is written by none of that batch: it becomes free when the batch has left.
    """

    def __init__(self, num_slots: int) -> None:
        self.num_evicted = 0
        self.num_restored = 0
        self._wanted: Counter[bytes] = Counter()
        self.clear(num_slots)

    def clear(self, num_slots: int) -> None:
        """Every slot and what it held is gone; there are so many new ones. Wishes stay."""
        self.num_slots = num_slots
        self._free = list(range(num_slots - 1, -1, -1))
        self._slot_of: dict[bytes, int] = {}
        self._unwanted: OrderedDict[bytes, None] = OrderedDict()  # moved here longest ago first
        self._evict: list[tuple[int, int]] = []
        self._restore: list[tuple[int, int]] = []

    def __contains__(self, key: bytes) -> bool:
        return key in self._slot_of

    @property
    def num_used(self) -> int:
        return len(self._slot_of)

    def keep(self, page: int, key: bytes) -> None:
        """The page is about to be overwritten; without a slot to have, its content is lost."""
        if self._free:
            slot = self._free.pop()
        elif self._unwanted:
            oldest, _ = self._unwanted.popitem(last=False)
            slot = self._slot_of.pop(oldest)
        else:
            return
        self._slot_of[key] = slot
        if key not in self._wanted:
            self._unwanted[key] = None
        self._evict.append((page, slot))
        self.num_evicted += 1

    def take(self, key: bytes) -> int:
        """The slot with this content, from now on the caller's."""
        self._unwanted.pop(key, None)
        return self._slot_of.pop(key)

    def restore(self, slot: int, page: int) -> None:
        """Copies what `take` gave into a page, with the next batch."""
        self._restore.append((slot, page))
        self.num_restored += 1

    def discard(self, key: bytes) -> None:
        """The content is of use to nobody, or on the device again; fine if it is not here."""
        slot = self._slot_of.pop(key, None)
        if slot is not None:
            self._unwanted.pop(key, None)
            self._free.append(slot)

    def want(self, keys: Iterable[bytes]) -> None:
        """A request waits for these, whether they are here yet or not."""
        for key in keys:
            self._wanted[key] += 1
            self._unwanted.pop(key, None)

    def unwant(self, keys: Iterable[bytes]) -> None:
        """It does not any more."""
        for key in keys:
            self._wanted[key] -= 1
            if not self._wanted[key]:
                del self._wanted[key]
                if key in self._slot_of:
                    self._unwanted[key] = None

    def depart(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """(page, slot) to evict and (slot, page) to restore by the batch that leaves now."""
        evict, restore = self._evict, self._restore
        self._evict, self._restore = [], []
        self._free.extend(slot for slot, _ in restore)
        return evict, restore

    def check(self) -> None:
        """Raises: IntegrityError: slots are lost or in two places."""
        slots = [*self._free, *self._slot_of.values(), *(slot for slot, _ in self._restore)]
        if sorted(slots) != list(range(self.num_slots)):
            raise IntegrityError(f"host slots: {len(slots)} accounted for, not {self.num_slots}")
        if self._unwanted.keys() != self._slot_of.keys() - self._wanted.keys():
            raise IntegrityError("host slots that may be taken are not those that nobody wants")
