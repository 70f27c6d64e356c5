"""Which pages of its context a row reads: all but those that are wholly hidden from it."""

from __future__ import annotations

import msgspec

from pie_backend.batch import Row


class Reach(msgspec.Struct, frozen=True, gc=False):
    """What the row attends to, as if the context held nothing else.

    Places count from the first slot of `pages`; rotary positions stay those of the context.
    """

    pages: list[int]
    start: int
    """The place of the row's first token."""
    hidden: list[tuple[int, int]]
    """Places [begin, end) that the row does not see, though they are in its pages."""

    @property
    def num_pages(self) -> int:
        return len(self.pages)


def reach_of(row: Row, page_size: int) -> Reach:
    num_pages = -(-(row.start + len(row.tokens)) // page_size)
    if not row.hidden or row.attention is not None:
        return Reach(row.pages[:num_pages], row.start, [])
    num_before = row.start // page_size  # pages that hold none of the row's own tokens
    pages: list[int] = []
    edges: list[tuple[int, int]] = []
    kept_from = num_left_out = 0
    for begin, end in row.hidden:
        first = min(-(-begin // page_size), num_before)
        last = min(end // page_size, num_before)
        shift = num_left_out * page_size
        if last <= first:
            edges.append((begin - shift, end - shift))
            continue
        pages += row.pages[kept_from:first]
        num_left_out += last - first
        kept_from = last
        edges.append((begin - shift, first * page_size - shift))
        shift = num_left_out * page_size
        edges.append((last * page_size - shift, end - shift))
    pages += row.pages[kept_from:num_pages]
    hidden = [(begin, end) for begin, end in edges if begin < end]
    return Reach(pages, row.start - num_left_out * page_size, hidden)
