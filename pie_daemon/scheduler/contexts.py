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
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pie_daemon.errors import PieError
from pie_daemon.scheduler.adapter_runs import AdapterRuns
from pie_daemon.scheduler.owners import Owner
from pie_daemon.scheduler.pages import IntegrityError, PagePool
from pie_daemon.scheduler.prefixes import PrefixKeys
from pie_daemon.scheduler.reuse import NOTHING, Found, Reuse
from pie_daemon.scheduler.suspension import Memories, PrivateKeys, Suspended
from pie_daemon.scheduler.tiers import HostTier
from pie_daemon.scheduler.visibility import EVERYTHING, Visibility

if TYPE_CHECKING:
    from pie_daemon.scheduler.request import Request


@dataclass(frozen=True, slots=True)
class Run:
    """Tokens of a journal that one row can compute: all that a row has but once is the same."""

    start: int
    tokens: list[int]
    adapter: str | None
    hidden: list[tuple[int, int]]
    """What none of its tokens sees."""

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)


@dataclass(slots=True, eq=False)
class Context:
    id: int
    owner: Owner
    journal: list[int] = field(default_factory=list)
    num_computed: int = 0
    """KV of tokens [0, num_computed) is in `pages`, or will be when the batch in flight is done."""
    num_drafted: int = 0
    """Guessed tokens beyond the journal that the batch in flight computes into `pages` as well."""
    pages: list[int] = field(default_factory=list)
    num_published: int = 0
    """The first so many pages are published, or have a published twin."""
    keys: list[bytes] = field(default_factory=list)
    """Of the first whole pages of the journal, as far as somebody asked for them."""
    adapters: AdapterRuns = field(default_factory=AdapterRuns)
    """What computed each token, or is to compute it."""
    visibility: Visibility = EVERYTHING
    """What each token of the journal saw, or will see."""
    num_open: int = 0
    """So many tokens at the end were appended since the last request: a hide applies to them."""
    request: Request | None = None
    """The one live request; while there is one, every mutating call answers `busy`."""
    priority: int = 0
    """Within its family: the highest is served first and suspended last."""
    suspended: Suspended | None = None
    """Set while its pages are given up for others; then `pages` is empty."""
    num_once_computed: int = 0
    """KV of tokens [0, num_once_computed) has been computed, and is lost beyond `num_computed`
    only because the context was suspended."""
    last_used: int = 0
    """Idle contexts are suspended in this order."""
    last_batch: int = 0
    """The number of the batch that was next when it was last used."""

    @property
    def num_pending(self) -> int:
        """Tokens that no batch has computed yet."""
        return len(self.journal) - self.num_computed

    @property
    def is_computed(self) -> bool:
        """The whole journal, though it may have to be computed again; that changes nothing."""
        return self.num_once_computed == len(self.journal)

    @property
    def first_open(self) -> int:
        """From here on it is open how tokens are computed: those that no request has asked for,
        and the last one, which is computed again for a draw."""
        return max(0, len(self.journal) - max(1, self.num_open))

    def circumstances(self, start: int, end: int) -> bytes:
        """What else than tokens the KV of tokens [start, end) depends on; usually nothing."""
        adapters, seen = self.adapters.content(start, end), self.visibility.described(start, end)
        if not adapters and not seen:
            return b""
        return len(adapters).to_bytes(4, "little") + adapters + seen

    @property
    def num_visible(self) -> int:
        """The length that the program sees: without what a generation has not handed out yet."""
        hidden = 0 if self.request is None else self.request.num_hidden
        return len(self.journal) - hidden

    def next_run(self, max_tokens: int) -> Run:
        """What the next row computes: of the journal, first time or again."""
        start = self.num_computed
        end = min(start + self.adapters.limit(start, max_tokens), len(self.journal))
        end = self.visibility.end_of_run(start, end)
        hidden = self.visibility.row_hidden(start, end)
        return Run(start, self.journal[start:end], self.adapters.at(start), hidden)


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
        self._reuse = Reuse(self.pool, self.host, page_size, self._key)
        self._last_use = 0
        self._keys = PrefixKeys(page_size, share=share_prefixes)
        self._contexts: dict[int, Context] = {}
        self._last_id = 0
        self._in_flight = False
        self._released: list[int] = []  # while a batch is in flight: pages that it may still touch

    def __len__(self) -> int:
        return len(self._contexts)

    def __iter__(self) -> Iterator[Context]:
        return iter(self._contexts.values())

    def create(self, owner: Owner) -> Context:
        self._last_id += 1
        context = Context(self._last_id, owner)
        self._contexts[context.id] = context
        owner.contexts.add(context.id)
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
        del context.journal[length:]
        context.adapters.truncate(length)
        if context.visibility.starts:
            context.visibility = context.visibility.truncated(length)
            self._forget_from(context, max(0, length - 1))
        else:
            self._forget_from(context, length)

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
        first = max(context.num_once_computed, context.first_open)
        if context.adapters.set_from(first, adapter):
            del context.keys[first // self.page_size :]

    def rewind(self, context: Context, num_computed: int) -> None:
        """Forgets the KV of tokens [num_computed, end) and of drafts; the journal stays."""
        self.settle_drafts(context, 0)
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
        context.owner.contexts.discard(context.id)

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
            shared = context.num_computed % self.page_size and holders(context.pages[-1]) > 1
            return missing + (1 if shared else 0)
        first = context.num_computed // self.page_size
        missing = self.num_pages_for(length) - first - len(found.keys)
        returned = sum(
            1 for page in context.pages[first:] if page != found.pages[0] and holders(page) == 1
        )
        copied = 1 if found.is_copied(holders, self.page_size) else 0
        return missing + found.num_revived(holders) - returned + copied

    def capacity(self, context: Context, num_pages: int) -> int:
        """The length that can be computed with so many pages of the pool."""
        num_copied = 1 if self._writes_shared_page(context) else 0
        return (len(context.pages) + num_pages - num_copied) * self.page_size

    def find_cached(self, context: Context) -> Found:
        """Pages, cached, held by others or in host memory, that the context could go on with.

        At least its last token is left to compute: a draw needs its logits.
        """
        return self._reuse.find(context)

    def key_after(self, context: Context, num_tokens: int) -> bytes | None:
        """Of the page after so many tokens; None when the journal ends within it."""
        index = num_tokens // self.page_size
        if (index + 1) * self.page_size > len(context.journal):
            return None
        return self._key(context, index)

    def key_of(self, context: Context, index: int) -> bytes:
        """Of a whole page of the journal."""
        return self._key(context, index)

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
            context.num_published = found.num_tokens // self.page_size
        self._memories.set(context, None)
        if context.num_computed % self.page_size:
            last = context.pages[-1]
            if self.pool.num_holders(last) == 1:
                self.pool.withdraw(last)

    def publish(self, context: Context) -> None:
        """Makes whole pages known by content; only when no batch computes them any more."""
        num_whole = context.num_computed // self.page_size
        if context.num_published < num_whole:
            for index in range(context.num_published, num_whole):
                self._publish_page(context, index)
            context.num_published = num_whole

    def extend(self, context: Context, length: int, copies: list[tuple[int, int]]) -> int:
        """Makes [num_computed, length) writable, as the next batch needs it; returns how many pages
        that took."""
        num_copied = 0
        if context.num_computed % self.page_size:
            last = context.pages[-1]
            if self.pool.num_holders(last) > 1:
                num_copied = 1
                context.pages[-1] = self.pool.allocate()
                copies.append((last, context.pages[-1]))
                self.pool.free([last])
            else:
                self.pool.withdraw(last)
        num_missing = self.num_pages_for(length) - len(context.pages)
        context.pages.extend(self.pool.allocate() for _ in range(num_missing))
        return num_copied + num_missing

    @property
    def num_suspended(self) -> int:
        return sum(context.suspended is not None for context in self)

    def holds_alone(self, context: Context) -> bool:
        """Whether suspending it would free a page."""
        return any(self.pool.num_holders(page) == 1 for page in context.pages)

    def num_held_by(self, owner: Owner) -> int:
        """Pages of all its contexts; a shared one counts in each."""
        return sum(len(self._contexts[context_id].pages) for context_id in owner.contexts)

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

    def _writes_shared_page(self, context: Context) -> bool:
        partial = context.num_computed % self.page_size != 0
        return partial and self.pool.num_holders(context.pages[-1]) > 1

    def _key(self, context: Context, index: int) -> bytes:
        if len(context.keys) <= index:
            user = context.owner.user_name
            about = context.circumstances
            self._keys.extend(context.keys, context.journal, index + 1, user, about)
        return context.keys[index]

    def _name(self, context: Context, index: int) -> bytes:
        """The key of a page that is let go."""
        page = context.pages[index]
        key = self.pool.key_of(page)
        if key is None and index < context.num_published:
            key = self._key(context, index)
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
        page, key = context.pages[index], self._key(context, index)
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
        num_whole = context.num_computed // self.page_size
        if context.num_published > num_whole:
            raise IntegrityError(f"context {context.id}: published more than is computed")
        for index, page in enumerate(context.pages[:num_whole]):
            key = self.pool.key_of(page)
            if key not in {None, self._key(context, index)} and key not in self._private:
                raise IntegrityError(f"context {context.id}: page {page} has other content")
