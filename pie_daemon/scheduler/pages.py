"""Who holds which KV page. A page has one holder, or several that only read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence


class IntegrityError(Exception):
    """The page accounting contradicts itself; the message says where."""


class PagePool:
    """Reference counts over pages [0, num_pages)."""

    def __init__(self, num_pages: int) -> None:
        self.num_pages = num_pages
        self._holders = [0] * num_pages
        # A stack: the page freed last is the likeliest to be in a cache still.
        self._free = list(range(num_pages - 1, -1, -1))

    @property
    def num_free(self) -> int:
        return len(self._free)

    def num_holders(self, page: int) -> int:
        return self._holders[page]

    def allocate(self) -> int:
        """Takes one free page; the caller is its only holder."""
        if not self._free:
            raise IntegrityError(
                f"all {self.num_pages} pages are held: a reservation was too small"
            )
        page = self._free.pop()
        self._holders[page] = 1
        return page

    def share(self, pages: Iterable[int]) -> None:
        """Adds one holder to each page."""
        for page in pages:
            if self._holders[page] == 0:
                raise IntegrityError(f"page {page} is free and cannot be shared")
            self._holders[page] += 1

    def free(self, pages: Iterable[int]) -> None:
        """Takes one holder from each page; a page without holders can be allocated again."""
        for page in pages:
            if self._holders[page] == 0:
                raise IntegrityError(f"page {page} is freed twice")
            self._holders[page] -= 1
            if self._holders[page] == 0:
                self._free.append(page)

    def check(self, tables: Iterable[Sequence[int]] | None = None) -> None:
        """Proves free + owned + shared == total; with the holders' page tables, every count too.

        Raises:
            IntegrityError: naming the first contradiction.
        """
        held = sum(1 for count in self._holders if count > 0)
        if held + len(self._free) != self.num_pages:
            raise IntegrityError(f"{held} held + {len(self._free)} free pages != {self.num_pages}")
        if len(set(self._free)) != len(self._free) or any(self._holders[p] for p in self._free):
            raise IntegrityError("a page is in the free list twice, or while it is held")
        if tables is not None:
            self._check_holders(tables)

    def _check_holders(self, tables: Iterable[Sequence[int]]) -> None:
        counts: Counter[int] = Counter()
        for table in tables:
            counts.update(table)
        for page, count in enumerate(self._holders):
            if counts[page] != count:
                raise IntegrityError(
                    f"page {page} counts {count} holders but {counts[page]} hold it"
                )
