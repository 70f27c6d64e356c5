"""How many pages contexts come to hold that are computed together, when they share some of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pie_daemon.scheduler.context import Context
    from pie_daemon.scheduler.contexts import ContextTable

PageName = int | bytes
"""A page, or the key of its content."""


@dataclass(frozen=True, slots=True)
class Span:
    """A context computes tokens [start, end)."""

    names: Sequence[PageName]
    """Of the pages that hold [0, start)."""
    start: int
    end: int


def num_pages_together(
    spans: Iterable[Span], page_size: int, is_held_by_others: Callable[[PageName], bool]
) -> int:
    """Pages that they hold in the end.

    Of those that write into one page the last needs no copy of it, if nobody else holds it.
    """
    spans = list(spans)
    holders = Counter(name for span in spans for name in span.names)
    missing = sum(-(-span.end // page_size) - len(span.names) for span in spans)
    writers = Counter(span.names[-1] for span in spans if span.start % page_size)
    copies = sum(
        count - (holders[name] == count and not is_held_by_others(name))
        for name, count in writers.items()
    )
    return len(holders) + missing + copies


def remembered_span(context: Context, contexts: ContextTable, start: int, end: int) -> Span:
    """As if nothing had been lost that it computed before `start`, whoever is suspended now."""
    names: list[PageName] = [contexts.pool.key_of(page) or page for page in context.pages]
    if context.suspended is not None:
        names = list(context.suspended.keys)
        start = min(start, context.suspended.num_tokens)
    else:
        start = min(start, context.num_computed)
    return Span(names[: contexts.num_pages_for(start)], start, end)


def current_span(context: Context, contexts: ContextTable, num_skippable: int, end: int) -> Span:
    """With what is there of it now."""
    found = contexts.find_cached(context, num_skippable)
    if not found:
        return Span(context.pages, context.num_computed, end)
    kept = context.pages[: context.num_computed // contexts.page_size]
    places = zip(found.keys, found.pages, strict=True)
    names = [*kept, *(key if page is None else page for key, page in places)]
    return Span(names, found.num_tokens, end)
