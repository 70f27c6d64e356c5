"""What a suspended context remembers of its pages: the keys to find them by, while they are there.

Whole pages have names by content anyway (see `prefixes`). The last one, which is not full, and any
other page whose content has no such name, get one that only contexts with a right to it know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pie_daemon.scheduler.tiers import HostTier

if TYPE_CHECKING:
    from pie_daemon.scheduler.context import Context


@dataclass(frozen=True, slots=True)
class Suspended:
    keys: list[bytes]
    """Of its pages when it was suspended."""
    num_tokens: int
    """How many tokens were computed."""
    wanted: bool = False
    """A request waits for it, so it will be used before others that are as old."""

    def key_of_whole(self, index: int, page_size: int) -> bytes | None:
        """Of a page that was full; None: there was no such page."""
        return self.keys[index] if (index + 1) * page_size <= self.num_tokens else None

    def key_of_part(self, index: int, page_size: int) -> bytes | None:
        """Of a page that held at least one token."""
        return self.keys[index] if index * page_size < self.num_tokens else None

    def cut(self, num_tokens: int, page_size: int) -> Suspended | None:
        """None: nothing is left."""
        kept = min(self.num_tokens, num_tokens)
        return Suspended(self.keys[: -(-kept // page_size)], kept) if kept else None


class PrivateKeys:
    """Names that no content has, each known to so many suspended contexts.

    A name that nobody knows any more is `forgotten`: the page under it is of no use.
    """

    _PREFIX = b"private"

    def __init__(self, forgotten: Callable[[bytes], None]) -> None:
        self._forgotten = forgotten
        self._known: Counter[bytes] = Counter()
        self._last = 0

    def __contains__(self, key: bytes | None) -> bool:
        return key in self._known

    def create(self) -> bytes:
        """Of a page that somebody will remember at once."""
        self._last += 1
        return self._PREFIX + self._last.to_bytes(8, "little")

    def remember(self, keys: Iterable[bytes]) -> None:
        self._known.update(key for key in keys if key.startswith(self._PREFIX))

    def forget(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            if key in self._known:
                self._known[key] -= 1
                if not self._known[key]:
                    del self._known[key]
                    self._forgotten(key)


class Memories:
    """What each suspended context remembers, and what follows for the pages under those keys."""

    def __init__(self, private: PrivateKeys, host: HostTier) -> None:
        self._private = private
        self._host = host

    def set(self, context: Context, after: Suspended | None) -> None:
        before, context.suspended = context.suspended, after
        # First the new ones: what both name is not forgotten in between.
        if after is not None:
            self._private.remember(after.keys)
            if after.wanted:
                self._host.want(after.keys)
        if before is not None:
            self._private.forget(before.keys)
            if before.wanted:
                self._host.unwant(before.keys)
