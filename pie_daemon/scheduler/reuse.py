"""Pages whose KV somebody has computed: what a context can go on with instead of computing it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pie_daemon.scheduler.pages import PagePool
from pie_daemon.scheduler.tiers import HostTier

if TYPE_CHECKING:
    from pie_daemon.scheduler.context import Context


@dataclass(frozen=True, slots=True)
class Found:
    """Pages that hold what a context would compute next."""

    keys: list[bytes]
    pages: list[int | None]
    """By the keys; None: in host memory."""
    num_tokens: int
    """How many tokens of the context are computed once it has them."""

    def __bool__(self) -> bool:
        return bool(self.keys)

    def num_revived(self, num_holders: Callable[[int], int]) -> int:
        """How many of them take a page from the pool that could be allocated else."""
        return sum(1 for page in self.pages if page is None or num_holders(page) == 0)

    def is_copied(self, num_holders: Callable[[int], int], page_size: int) -> bool:
        """Whether the context goes on within a page that others hold too."""
        last = self.pages[-1]
        return self.num_tokens % page_size != 0 and last is not None and num_holders(last) > 0


NOTHING = Found([], [], 0)


class Reuse:
    """Finds pages by their keys on the device and in host memory, and brings them to a context."""

    def __init__(
        self,
        pool: PagePool,
        host: HostTier,
        page_size: int,
        key: Callable[[Context, int], bytes],
    ) -> None:
        """`key` names the whole pages of a context by their content."""
        self._pool = pool
        self._host = host
        self._page_size = page_size
        self._key = key

    def find(self, context: Context, num_skippable: int) -> Found:
        """Of the first `num_skippable` tokens."""
        first = context.num_computed // self._page_size
        keys: list[bytes] = []
        for index in range(first, num_skippable // self._page_size):
            key = self._key_of_whole(context, index)
            if key is None or not self._is_there(key):
                break
            keys.append(key)
        num_tokens = (first + len(keys)) * self._page_size
        if context.suspended is not None and num_tokens < num_skippable:
            part = context.suspended.key_of_part(len(keys), self._page_size)
            if part is not None and self._is_there(part):
                keys.append(part)
                num_tokens += self._page_size
                num_tokens = min(context.suspended.num_tokens, num_tokens, num_skippable)
        return self._found(context, first, keys, num_tokens)

    def _found(self, context: Context, first: int, keys: list[bytes], num_tokens: int) -> Found:
        # What one row has to compute is there as a whole, or not at all.
        num_tokens = context.layout.start_of(num_tokens)
        keys = keys[: max(0, -(-num_tokens // self._page_size) - first)]
        return Found(keys, [self._pool.find(key) for key in keys], num_tokens) if keys else NOTHING

    def collect(self, found: Found) -> list[int]:
        """The pages, with the caller as one more holder; what is in host memory comes back."""
        # What is on the device first, and what is read from the host: allocating evicts.
        self._pool.share(page for page in found.pages if page is not None)
        slots = [
            self._host.take(key) if page is None else 0
            for key, page in zip(found.keys, found.pages, strict=True)
        ]
        return [
            self._restore(key, slot) if page is None else page
            for key, page, slot in zip(found.keys, found.pages, slots, strict=True)
        ]

    def _restore(self, key: bytes, slot: int) -> int:
        page = self._pool.allocate()
        self._host.restore(slot, page)
        self._pool.publish(page, key)
        return page

    def _key_of_whole(self, context: Context, index: int) -> bytes | None:
        """None: it has no name."""
        suspended = context.suspended
        key = None if suspended is None else suspended.key_of_whole(index, self._page_size)
        if key is None and (index + 1) * self._page_size <= context.num_plain:
            return self._key(context, index)
        return key

    def _is_there(self, key: bytes) -> bool:
        return self._pool.find(key) is not None or key in self._host
