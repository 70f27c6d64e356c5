"""Random batches of every kind of row."""

from __future__ import annotations

import random

from pie_backend.batch import Row

KINDS = ("plain", "hidden", "masked", "ahead")


def random_row(source: random.Random, kind: str, page_size: int, pages: list[int]) -> Row:
    """Up to three pages in the cache and two new, with one to spare; takes them from `pages`."""
    num_tokens = source.choice([1, 1, 2, page_size, source.randint(1, 2 * page_size)])
    start = source.choice([0, page_size, source.randint(0, 3 * page_size)])
    end = start + num_tokens
    table = [pages.pop() for _ in range(-(-end // page_size) + source.randrange(2))]
    tokens = [0] * num_tokens
    if kind == "hidden":
        cuts = sorted(source.sample(range(end + 1), 2 * source.randint(1, max(1, end // 4))))
        return Row(tokens, start, table, hidden=list(zip(cuts[::2], cuts[1::2], strict=True)))
    if kind in ("masked", "ahead"):
        bits = [
            _seen(source, start + i, end if kind == "ahead" else start + i)
            for i in range(num_tokens)
        ]
        num_bytes = -(-end // 8)
        return Row(tokens, start, table, attention=[b.to_bytes(num_bytes, "little") for b in bits])
    return Row(tokens, start, table)


def _seen(source: random.Random, own: int, end: int) -> int:
    """Bits of half of the places before `end`, and of its own."""
    return sum(1 << place for place in range(end) if source.random() < 0.5) | 1 << own
