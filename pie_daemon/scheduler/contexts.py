"""Contexts: a journal of tokens, how many of them are computed, and the pages that hold their KV.

Invariant of every context: `len(pages) == ceil((num_computed + num_drafted) / page_size)`. A page
that more than one context holds is only read; the first to write into a shared page takes a copy
(fork is lazy). Whole pages are published by content once they are computed; who holds a published
page alone withdraws it before writing. Drafts are kept or forgotten before anything is published.

A suspended context holds no page. What it let go stays cached, then moves to host memory or is
lost, as others need the room; `find_cached` finds what there still is, and the rest is computed
again from the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from pie_daemon.errors import PieError
from pie_daemon.scheduler.context import Context
from pie_daemon.scheduler.owners import Owner
from pie_daemon.scheduler.pages import IntegrityError, PagePool
from pie_daemon.scheduler.prefixes import PrefixKeys
from pie_daemon.scheduler.reuse import NOTHING, Found, Reuse
from pie_daemon.scheduler.suspension import Memories, PrivateKeys, Suspended
from pie_daemon.scheduler.tiers import HostTier


class ContextTable:
    """All contexts of one model and the pages between them."""

    def __init__(
        self,
        num_pages: int,
        page_size: int,
        *,
        share_prefixes: bool = False,
        num_host_pages: int = 0,
    ) -> None:
        self.host = HostTier(num_host_pages)
        self.pool = PagePool(num_pages, self.host.keep)
        self.page_size = page_size
        self.num_suspensions = 0
        self.num_batches = 0
        self._private = PrivateKeys(self._forget)
        self._memories = Memories(self._private, self.host)
        self._reuse = Reuse(self.pool, self.host, page_size, self.key_of)
        self._last_use = 0
        self._keys = PrefixKeys(page_size, share=share_prefixes)
        self._contexts: dict[int, Context] = {}
        self._last_id = 0
        self._in_flight = False
        self._owed_copies: list[tuple[int, int]] = []
        self._released: list[int] = []  # while a batch is in flight: pages that it may still touch

    def __len__(self) -> int:
        return len(self._contexts)

    def __iter__(self) -> Iterator[Context]:
        return iter(self._contexts.values())

    def create(self, owner: Owner) -> Context:
        self._last_id += 1
        context = Context(self._last_id, owner)
        self._contexts[context.id] = context
        owner.contexts[context.id] = context
        self.touch(context)
        return context

    def touch(self, context: Context) -> None:
        """It is in use: of the idle ones it is now the last to be suspended."""
        self._last_use += 1
        context.last_used = self._last_use
        context.last_batch = self.num_batches

    def get(self, context_id: int) -> Context:
        context = self._contexts.get(context_id)
        if context is None:
            raise PieError("not-found", f"there is no context {context_id}")
        return context

    def get_idle(self, context_id: int) -> Context:
        context = self.get(context_id)
        if context.request is not None:
            raise PieError("busy", "a request is running on this context: finish or cancel it")
        return context

    def fork(self, context: Context) -> Context:
        child = self.create(context.owner)
        child.journal = context.journal.copy()
        child.num_computed = context.num_computed
        child.pages = context.pages.copy()
        child.num_published = context.num_published
        child.keys = context.keys.copy()
        child.adapters = context.adapters.copy()
        child.visibility = context.visibility
        child.num_open = context.num_open
        child.priority = context.priority
        child.num_once_computed = context.num_once_computed
        child.layout = context.layout
        self.pool.share(child.pages)
        if context.suspended is not None:
            self._memories.set(child, replace(context.suspended, wanted=False))
        self.touch(context)
        return child

    def append(self, context: Context, tokens: Sequence[int]) -> None:
        context.journal.extend(tokens)
        context.num_open += len(tokens)

    def truncate(self, context: Context, length: int) -> None:
        context.num_open = max(0, context.num_open - (len(context.journal) - length))
        num_unchanged = context.layout.num_unchanged(length)
        del context.journal[length:]
        context.adapters.truncate(length)
        if context.visibility.starts:
            context.visibility = context.visibility.truncated(length)
            num_unchanged = min(num_unchanged, max(0, length - 1))
        context.layout = context.layout.truncated(length)
        self._forget_from(context, num_unchanged)

    def set_visible(self, context: Context, start: int, end: int, visible: bool) -> None:
        """For tokens that no request has asked to compute yet, and for the last one: the next
        token is drawn from what it sees.

        So it does not matter how far batches have come, only what the program called before.
        """
        first = context.first_open
        changed = context.visibility.changed(first, start, end, visible)
        if changed is not context.visibility:
            context.visibility = changed
            self._forget_from(context, first)

    def _forget_from(self, context: Context, length: int) -> None:
        """Whatever was known of what tokens from `length` on are, or saw."""
        del context.keys[length // self.page_size :]
        self.rewind(context, length)

    def compute_with(self, context: Context, adapter: str | None) -> None:
        """What no request has asked to compute yet will be with that adapter; the rest stays, and
        if its pages are lost, it is computed again with the adapter that it had."""
        first = max(context.num_once_computed, context.layout.start_of(context.first_open))
        self.compute_from(context, first, adapter)

    def compute_from(self, context: Context, first: int, adapter: str | None) -> None:
        """Tokens from the first one on will be computed with that adapter."""
        first = context.layout.start_of(first)
        if context.adapters.set_from(first, adapter):
            del context.keys[first // self.page_size :]

    def rewind(self, context: Context, num_computed: int) -> None:
        """Forgets the KV of tokens [num_computed, end), of those that a row has to compute together
        with them, and of drafts; the journal stays."""
        self.settle_drafts(context, 0)
        num_computed = context.layout.start_of(num_computed)
        context.num_once_computed = min(context.num_once_computed, num_computed)
        if context.suspended is not None:
            self._memories.set(context, context.suspended.cut(num_computed, self.page_size))
        if num_computed < context.num_computed:
            context.num_computed = num_computed
            self._cut(context)
            context.num_published = min(context.num_published, num_computed // self.page_size)

    def settle_drafts(self, context: Context, num_kept: int) -> int:
        """So many of the drafts became tokens of the journal, the others are forgotten; returns how
        many pages that let go."""
        if not context.num_drafted:
            return 0
        context.num_computed += num_kept
        context.num_once_computed = max(context.num_once_computed, context.num_computed)
        context.num_drafted = 0
        return self._cut(context)

    def keep_drafts(self, context: Context, num_kept: int) -> None:
        """So many of the drafts became tokens of the journal; the others may do so yet."""
        context.num_computed += num_kept
        context.num_once_computed = max(context.num_once_computed, context.num_computed)
        context.num_drafted -= num_kept

    def suspend(self, context: Context) -> None:
        """Gives its pages up; only when no batch is in flight."""
        assert not self._in_flight, "pages of a batch in flight cannot be given up"
        if not context.pages:
            return
        self.publish(context)
        keys = [self._name(context, index) for index in range(len(context.pages))]
        wanted = context.request is not None and not context.request.ended
        self._memories.set(context, Suspended(keys, context.num_computed, wanted))
        self._release(context.pages)
        context.pages, context.num_computed, context.num_published = [], 0, 0
        self.num_suspensions += 1

    def want(self, context: Context) -> None:
        """A request waits for it."""
        if context.suspended is not None:
            self._memories.set(context, replace(context.suspended, wanted=True))

    def drop(self, context: Context) -> None:
        self.rewind(context, 0)
        del self._contexts[context.id]
        context.owner.contexts.pop(context.id, None)

    def num_pages_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.page_size)

    def num_pages_to_take(
        self,
        context: Context,
        length: int,
        found: Found = NOTHING,
        num_holders: Callable[[int], int] | None = None,
    ) -> int:
        """Pages that computing up to `length` takes from the pool, a copied page included.

        Never more with pages `found` than without: each makes up for one to compute, and the
        partial page that they replace was to be copied or goes back to the pool. `num_holders`
        tells what would be if others let go of theirs.
        """
        holders = num_holders or self.pool.num_holders
        if not found:
            missing = self.num_pages_for(length) - len(context.pages)
            return missing + (1 if self._writes_shared_page(context, holders) else 0)
        first = context.num_computed // self.page_size
        missing = self.num_pages_for(length) - first - len(found.keys)
        returned = sum(
            1 for page in context.pages[first:] if page != found.pages[0] and holders(page) == 1
        )
        copied = 1 if found.is_copied(holders, self.page_size) else 0
        return missing + found.num_revived(holders) - returned + copied

    def capacity(self, context: Context, num_pages: int) -> int:
        """The length that can be computed with so many pages of the pool."""
        num_copied = 1 if self._writes_shared_page(context, self.pool.num_holders) else 0
        return (len(context.pages) + num_pages - num_copied) * self.page_size

    def unshare(self, context: Context) -> None:
        """Gives it the page that it writes next for itself; the next batch copies it."""
        if self._writes_shared_page(context, self.pool.num_holders):
            self._owed_copies.append(self._replace_last_page(context))

    def take_copies(self) -> list[tuple[int, int]]:
        """What `unshare` left for the next batch to do."""
        copies, self._owed_copies = self._owed_copies, []
        return copies

    def find_cached(self, context: Context, num_skippable: int) -> Found:
        """Pages, cached, held by others or in host memory, that the context could go on with, and
        nothing of what comes after its first `num_skippable` tokens: their logits are needed."""
        return self._reuse.find(context, num_skippable)

    def key_after(self, context: Context, num_tokens: int) -> bytes | None:
        """Of the page after so many tokens; None when it has no name by content, or the journal
        ends within it."""
        index = num_tokens // self.page_size
        if (index + 1) * self.page_size > context.num_plain:
            return None
        return self.key_of(context, index)

    def key_of(self, context: Context, index: int) -> bytes:
        """Of a whole page of the journal."""
        if len(context.keys) <= index:
            user = context.owner.user_name
            about = context.circumstances
            self._keys.extend(context.keys, context.journal, index + 1, user, about)
        return context.keys[index]

    def adopt(self, context: Context, found: Found) -> None:
        """Continues after pages of `find_cached` instead of computing them.

        From then on nobody else can find the page that it is about to write.
        """
        if found:
            first = context.num_computed // self.page_size
            pages = self._reuse.collect(found)
            self._release(context.pages[first:])
            context.pages[first:] = pages
            context.num_computed = found.num_tokens
            context.num_once_computed = max(context.num_once_computed, found.num_tokens)
            context.num_published = min(found.num_tokens, context.num_plain) // self.page_size
        self._memories.set(context, None)
        if context.num_computed % self.page_size:
            last = context.pages[-1]
            if self.pool.num_holders(last) == 1:
                self.pool.withdraw(last)

    def publish(self, context: Context) -> None:
        """Makes whole pages known by content; only when no batch computes them any more."""
        if context.num_published == context.num_computed // self.page_size:
            return
        num_whole = min(context.num_computed, context.num_plain) // self.page_size
        if context.num_published < num_whole:
            for index in range(context.num_published, num_whole):
                self._publish_page(context, index)
            context.num_published = num_whole

    def extend(self, context: Context, length: int, copies: list[tuple[int, int]]) -> int:
        """Makes [num_computed, length) writable, as the next batch needs it; returns how many pages
        that took."""
        # Once for every row of every batch.
        num_copied, pages, pool = 0, context.pages, self.pool
        if context.num_computed % self.page_size:
            if pool.num_holders(pages[-1]) > 1:
                num_copied = 1
                copies.append(self._replace_last_page(context))
            else:
                pool.withdraw(pages[-1])
        num_missing = -(-length // self.page_size) - len(pages)
        if num_missing:
            pages.extend([pool.allocate() for _ in range(num_missing)])
        return num_copied + num_missing

    @property
    def num_suspended(self) -> int:
        return sum(context.suspended is not None for context in self)

    def holds_alone(self, context: Context) -> bool:
        """Whether suspending it would free a page."""
        return any(self.pool.num_holders(page) == 1 for page in context.pages)

    def num_held_by(self, owner: Owner) -> int:
        """Pages of all its contexts; a shared one counts in each."""
        return sum(len(context.pages) for context in owner.contexts.values())

    def adapters_in_use(self) -> set[str]:
        """Those that computed tokens of some context, or will."""
        return {adapter for context in self for adapter in context.adapters.used}

    def depart(self) -> None:
        """A batch takes off: until it lands, pages that are let go stay out of the pool."""
        self._in_flight = True
        self.num_batches += 1

    def land(self) -> None:
        self._in_flight = False
        self.pool.free(self._released)
        self._released = []

    def lose_pages(self, num_pages: int, num_host_pages: int) -> None:
        """The backend is gone, with the batch in flight and all that was computed: every context
        falls to its journal, and the next backend has so many pages."""
        self._in_flight = False
        for context in self:
            self._memories.set(context, None)
            context.pages, context.num_computed, context.num_published = [], 0, 0
            context.num_drafted = 0
        self._owed_copies, self._released = [], []
        self.pool.clear(num_pages)
        self.host.clear(num_host_pages)

    def check(self, held_aside: Sequence[int] = ()) -> None:
        """`held_aside`: pages that are on their way into the cache."""
        self.pool.check([*(context.pages for context in self), self._released, held_aside])
        self.host.check()
        for context in self:
            if context.suspended is not None and context.pages:
                raise IntegrityError(f"context {context.id}: suspended, and holds pages")
            num_tokens = context.num_computed + context.num_drafted
            if len(context.pages) != self.num_pages_for(num_tokens):
                raise IntegrityError(f"context {context.id}: page table and KV length differ")
            if context.num_pending < 0:
                raise IntegrityError(f"context {context.id}: more KV than tokens")
            self._check_content(context)

    def _cut(self, context: Context) -> int:
        kept = self.num_pages_for(context.num_computed)
        released = context.pages[kept:]
        self._release(released)
        del context.pages[kept:]
        return len(released)

    def _writes_shared_page(self, context: Context, num_holders: Callable[[int], int]) -> bool:
        partial = context.num_computed % self.page_size != 0
        return partial and num_holders(context.pages[-1]) > 1

    def _replace_last_page(self, context: Context) -> tuple[int, int]:
        """By a page of its own; the copy that a batch has to do."""
        shared = context.pages[-1]
        context.pages[-1] = self.pool.allocate()
        self.pool.free([shared])
        return shared, context.pages[-1]

    def _name(self, context: Context, index: int) -> bytes:
        """The key of a page that is let go."""
        page = context.pages[index]
        key = self.pool.key_of(page)
        if key is None and index < context.num_published:
            key = self.key_of(context, index)
            if self.pool.find(key) is None:
                self._publish_page(context, index)
        elif key is None:
            key = self._private.create()
            self.pool.publish(page, key)
        return key

    def _forget(self, key: bytes) -> None:
        page = self.pool.find(key)
        if page is not None:
            self.pool.withdraw(page)
        self.host.discard(key)

    def _publish_page(self, context: Context, index: int) -> None:
        page, key = context.pages[index], self.key_of(context, index)
        twin = self.pool.find(key)
        if twin is None:
            self.host.discard(key)
            self.pool.publish(page, key)
        elif twin != page and self.pool.num_holders(page) == 1:
            # Computed twice: holding the twin costs nothing, since this one goes back to the pool.
            self.pool.share([twin])
            self.pool.free([page])
            context.pages[index] = twin

    def _release(self, pages: list[int]) -> None:
        # The last page first: cached pages are of use only while those before them are there too.
        if self._in_flight:
            self._released.extend(reversed(pages))
        else:
            self.pool.free(reversed(pages))

    def _check_content(self, context: Context) -> None:
        num_whole = min(context.num_computed, context.num_plain) // self.page_size
        if context.num_published > num_whole:
            raise IntegrityError(f"context {context.id}: published more than is computed")
        own = map(
            self.pool.key_of, context.pages[num_whole : context.num_computed // self.page_size]
        )
        if any(key is not None and key not in self._private for key in own):
            raise IntegrityError(f"context {context.id}: others can find a page of its own")
        for index, page in enumerate(context.pages[:num_whole]):
            key = self.pool.key_of(page)
            if key not in {None, self.key_of(context, index)} and key not in self._private:
                raise IntegrityError(f"context {context.id}: page {page} has other content")
