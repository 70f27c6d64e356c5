"""Which rows of a batch begin with the same pages, so that their attention to these is computed for
all of them at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

FEWEST_TOKENS = 64
"""Of a group: fewer are as fast one by one."""
MOST_LEVELS = 4
"""As in shared.h."""


@dataclass(frozen=True, slots=True)
class Group:
    rows: list[int]
    begin: int
    """Tokens [begin, end) are of pages that all of the rows have in the same place; those before
    were of a group of the level above."""
    end: int


@dataclass(frozen=True, slots=True)
class Sharing:
    """Groups of one level have no row in common."""

    levels: list[list[Group]]
    begins: list[int]
    """Of each row: the first token that it attends to by itself."""

    @property
    def num_spared(self) -> int:
        """Tokens that would be attended to again."""
        groups = (group for level in self.levels for group in level)
        return sum((len(group.rows) - 1) * (group.end - group.begin) for group in groups)


def find_sharing(tables: Sequence[list[int]], wholes: Sequence[int], page_size: int) -> Sharing:
    """wholes: how many pages at the beginning of a row's table are seen by it as a whole."""
    search = _Search(tables, wholes, page_size, [0] * len(tables))
    if len({table[0] for table in tables}) < len(tables):  # almost always it ends here
        search.split(list(range(len(tables))), 0, 0, 0)
    return Sharing(search.levels, search.begins)


@dataclass(slots=True)
class _Search:
    tables: Sequence[list[int]]
    wholes: Sequence[int]
    page_size: int
    begins: list[int]
    levels: list[list[Group]] = field(default_factory=list)

    def split(self, rows: list[int], begin: int, depth: int, level: int) -> None:
        """Of rows whose tables begin with the same `depth` pages, of which the first `begin` are in
        groups already."""
        by_page: defaultdict[int, list[int]] = defaultdict(list)
        for row in rows:
            if self.wholes[row] > depth:
                by_page[self.tables[row][depth]].append(row)
        for same in by_page.values():
            if len(same) > 1:
                self._add(same, begin, self._equal(same, depth), level)

    def _add(self, rows: list[int], begin: int, end: int, level: int) -> None:
        first, last = begin * self.page_size, end * self.page_size
        if last - first < FEWEST_TOKENS:
            self.split(rows, begin, end, level)
            return
        if level == len(self.levels):
            self.levels.append([])
        self.levels[level].append(Group(rows, first, last))
        for row in rows:
            self.begins[row] = last
        if level + 1 < MOST_LEVELS:
            self.split(rows, end, end, level + 1)

    def _equal(self, rows: list[int], depth: int) -> int:
        """How many pages are equal: as many as in the first and the last of them in order."""
        tables = [self.tables[row] for row in rows]
        low, high = min(tables), max(tables)
        end = min(self.wholes[row] for row in rows)
        return next((place for place in range(depth, end) if low[place] != high[place]), end)
