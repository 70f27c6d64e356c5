"""Who holds which KV page, and what content the pages have that nobody writes any more.

A page is free, owned (one holder), shared (several, that only read it) or cached: nobody holds it,
but its content is published, so that it can be held again until its place is needed.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence


class IntegrityError(Exception):
    """The page accounting contradicts itself; the message says where."""


class PagePool:
    """Reference counts over pages [0, num_pages), and published pages by the key of their content.

    A published page is immutable: who holds it alone and wants to write withdraws it first.
    """

    def __init__(self, num_pages: int, evicted: Callable[[int, bytes], None] | None = None) -> None:
        """`evicted` is told of a cached page, and of the key of its content, before the page is
        given to somebody who will overwrite it."""
        self._evicted = evicted
        self.clear(num_pages)

    def clear(self, num_pages: int) -> None:
        """Every page and what it held is gone; there are so many new ones."""
        self.num_pages = num_pages
        self._holders = [0] * num_pages
        # A stack: the page freed last is the likeliest to be in a cache still.
        self._free = list(range(num_pages - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._key_of: dict[int, bytes] = {}
        self._page_of: dict[bytes, int] = {}

    @property
    def num_free(self) -> int:
        """Pages that can be allocated at once: free and cached ones."""
        return len(self._free) + len(self._cached)

    @property
    def num_cached(self) -> int:
        return len(self._cached)

    def num_holders(self, page: int) -> int:
        return self._holders[page]

    def key_of(self, page: int) -> bytes | None:
        return self._key_of.get(page)

    def find(self, key: bytes) -> int | None:
        """The published page with this content."""
        return self._page_of.get(key)

    def allocate(self) -> int:
        """Takes a free page, or else the cached one that was let go first; the caller is its only
        holder."""
        if self._free:
            page = self._free.pop()
        elif self._cached:
            page, _ = self._cached.popitem(last=False)
            self._evict(page)
        else:
            raise IntegrityError(
                f"all {self.num_pages} pages are held: a reservation was too small"
            )
        self._holders[page] = 1
        return page

    def share(self, pages: Iterable[int]) -> None:
        """Adds one holder to each page; a cached one has its first again."""
        for page in pages:
            if self._holders[page] == 0:
                if page not in self._cached:
                    raise IntegrityError(f"page {page} is free and cannot be shared")
                del self._cached[page]
            self._holders[page] += 1

    def free(self, pages: Iterable[int]) -> None:
        """Takes one holder from each page; a page without holders can be allocated again."""
        for page in pages:
            if self._holders[page] == 0:
                raise IntegrityError(f"page {page} is freed twice")
            self._holders[page] -= 1
            if self._holders[page] == 0:
                self._let_go(page)

    def publish(self, page: int, key: bytes) -> None:
        """From now on the page can be found by its content, and nobody writes it."""
        if self._holders[page] == 0 or page in self._key_of or key in self._page_of:
            raise IntegrityError(f"page {page} is free or published already, or its content is")
        self._key_of[page] = key
        self._page_of[key] = page

    def withdraw(self, page: int) -> None:
        """The page cannot be found any more; fine for one that was not published."""
        key = self._key_of.pop(page, None)
        if key is None:
            return
        del self._page_of[key]
        if page in self._cached:
            del self._cached[page]
            self._free.append(page)

    def check(self, tables: Iterable[Sequence[int]] | None = None) -> None:
        """Proves free + owned + shared + cached == total and that published pages are found by
        their key; with the holders' page tables, every count too.

        Raises:
            IntegrityError: naming the first contradiction.
        """
        held = sum(1 for count in self._holders if count > 0)
        num_free, num_cached = len(self._free), len(self._cached)
        if held + num_free + num_cached != self.num_pages:
            raise IntegrityError(
                f"{held} held + {num_free} free + {num_cached} cached pages != {self.num_pages}"
            )
        unheld = {*self._free, *self._cached}
        if len(unheld) != num_free + num_cached or any(self._holders[page] for page in unheld):
            raise IntegrityError("a page is in the free list twice, or while it is held")
        self._check_published()
        if tables is not None:
            self._check_holders(tables)

    def _evict(self, page: int) -> None:
        key = self._key_of.pop(page)
        del self._page_of[key]
        if self._evicted is not None:
            self._evicted(page, key)

    def _let_go(self, page: int) -> None:
        if page in self._key_of:
            self._cached[page] = None
        else:
            self._free.append(page)

    def _check_published(self) -> None:
        if {key: page for page, key in self._key_of.items()} != self._page_of:
            raise IntegrityError("published pages and their keys differ")
        if not self._cached.keys() <= self._key_of.keys():
            raise IntegrityError("a cached page cannot be found by its content")
        if not self._key_of.keys().isdisjoint(self._free):
            raise IntegrityError("a free page can be found by its content")

    def _check_holders(self, tables: Iterable[Sequence[int]]) -> None:
        counts: Counter[int] = Counter()
        for table in tables:
            counts.update(table)
        for page, count in enumerate(self._holders):
            if counts[page] != count:
                raise IntegrityError(
                    f"page {page} counts {count} holders but {counts[page]} hold it"
                )
