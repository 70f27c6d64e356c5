"""Contexts: a journal of tokens, how many of them are computed, and the pages that hold their KV.

Invariant of every context: `len(pages) == ceil((num_computed + num_drafted) / page_size)`. A page
that more than one context holds is only read; the first to write into a shared page takes a copy
(fork is lazy). Whole pages are published by content once they are computed; who holds a published
page alone withdraws it before writing. Drafts are kept or forgotten before anything is published.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pie_daemon.errors import PieError
from pie_daemon.scheduler.adapter_runs import AdapterRuns
from pie_daemon.scheduler.owners import Owner
from pie_daemon.scheduler.pages import IntegrityError, PagePool
from pie_daemon.scheduler.prefixes import PrefixKeys

if TYPE_CHECKING:
    from pie_daemon.scheduler.request import Request


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
    request: Request | None = None
    """The one live request; while there is one, every mutating call answers `busy`."""

    @property
    def num_pending(self) -> int:
        """Tokens that no batch has computed yet."""
        return len(self.journal) - self.num_computed

    @property
    def num_visible(self) -> int:
        """The length that the program sees: without what a generation has not handed out yet."""
        hidden = 0 if self.request is None else self.request.num_hidden
        return len(self.journal) - hidden


class ContextTable:
    """All contexts of one model and the pages between them."""

    def __init__(self, num_pages: int, page_size: int, *, share_prefixes: bool = False) -> None:
        self.pool = PagePool(num_pages)
        self.page_size = page_size
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
        return context

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
        self.pool.share(child.pages)
        return child

    def truncate(self, context: Context, length: int) -> None:
        del context.journal[length:]
        del context.keys[length // self.page_size :]
        context.adapters.truncate(length)
        self.rewind(context, length)

    def compute_with(self, context: Context, adapter: str | None) -> None:
        """What is not computed yet will be with that adapter; what is computed stays."""
        if context.adapters.set_from(context.num_computed, adapter):
            del context.keys[context.num_computed // self.page_size :]

    def rewind(self, context: Context, num_computed: int) -> None:
        """Forgets the KV of tokens [num_computed, end) and of drafts; the journal stays."""
        self.settle_drafts(context, 0)
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
        context.num_drafted = 0
        return self._cut(context)

    def drop(self, context: Context) -> None:
        self.rewind(context, 0)
        del self._contexts[context.id]
        context.owner.contexts.discard(context.id)

    def num_pages_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.page_size)

    def num_pages_to_take(self, context: Context, length: int, found: Sequence[int] = ()) -> int:
        """Pages that computing up to `length` takes from the pool, a copied page included.

        Never more with `found` pages to adopt than without: each makes up for one to compute, and
        the partial page that they replace was to be copied or goes back to the pool.
        """
        if not found:
            missing = self.num_pages_for(length) - len(context.pages)
            return missing + (1 if self._writes_shared_page(context) else 0)
        first = context.num_computed // self.page_size
        missing = self.num_pages_for(length) - first - len(found)
        revived = sum(1 for page in found if self.pool.num_holders(page) == 0)
        returned = sum(
            1
            for page in context.pages[first:]
            if page != found[0] and self.pool.num_holders(page) == 1
        )
        return missing + revived - returned

    def capacity(self, context: Context, num_pages: int) -> int:
        """The length that can be computed with so many pages of the pool."""
        num_copied = 1 if self._writes_shared_page(context) else 0
        return (len(context.pages) + num_pages - num_copied) * self.page_size

    def find_cached(self, context: Context) -> list[int]:
        """Published pages that hold what the context would compute next.

        At least its last token is left to compute: a draw needs its logits.
        """
        found: list[int] = []
        first = context.num_computed // self.page_size
        for index in range(first, (len(context.journal) - 1) // self.page_size):
            page = self.pool.find(self._key(context, index))
            if page is None:
                break
            found.append(page)
        return found

    def key_after(self, context: Context, num_found: int = 0) -> bytes | None:
        """Of the page after what is computed and found; None when the journal ends within it."""
        index = context.num_computed // self.page_size + num_found
        if (index + 1) * self.page_size > len(context.journal):
            return None
        return self._key(context, index)

    def adopt(self, context: Context, found: list[int]) -> None:
        """Continues after pages of `find_cached` instead of computing them."""
        if not found:
            return
        first = context.num_computed // self.page_size
        self.pool.share(found)
        self._release(context.pages[first:])
        context.pages[first:] = found
        context.num_published = len(context.pages)
        context.num_computed = len(context.pages) * self.page_size

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

    def num_held_by(self, owner: Owner) -> int:
        """Pages of all its contexts; a shared one counts in each."""
        return sum(len(self._contexts[context_id].pages) for context_id in owner.contexts)

    def adapters_in_use(self) -> set[str]:
        """Those that computed tokens of some context, or will."""
        return {adapter for context in self for adapter in context.adapters.used}

    def depart(self) -> None:
        """A batch takes off: until it lands, pages that are let go stay out of the pool."""
        self._in_flight = True

    def land(self) -> None:
        self._in_flight = False
        self.pool.free(self._released)
        self._released = []

    def check(self) -> None:
        self.pool.check([*(context.pages for context in self), self._released])
        for context in self:
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
            user, adapters = context.owner.user_name, context.adapters.content
            self._keys.extend(context.keys, context.journal, index + 1, user, adapters)
        return context.keys[index]

    def _publish_page(self, context: Context, index: int) -> None:
        page, key = context.pages[index], self._key(context, index)
        twin = self.pool.find(key)
        if twin is None:
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
            if self.pool.key_of(page) not in {None, self._key(context, index)}:
                raise IntegrityError(f"context {context.id}: page {page} has other content")
