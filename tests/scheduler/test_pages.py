"""Page accounting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_daemon.scheduler.pages import IntegrityError, PagePool


def test_a_shared_page_is_free_after_its_last_holder() -> None:
    """Each holder frees once; only the last makes the page available."""
    pool = PagePool(2)
    page = pool.allocate()
    pool.share([page])

    pool.free([page])
    assert pool.num_free == 1
    pool.free([page])

    assert pool.num_free == 2
    pool.check([])


def test_misuse_is_refused() -> None:
    """Too many allocations, a double free and sharing a free page raise at once."""
    pool = PagePool(1)
    page = pool.allocate()
    with pytest.raises(IntegrityError, match="all 1 pages are held"):
        pool.allocate()
    pool.free([page])
    with pytest.raises(IntegrityError, match="freed twice"):
        pool.free([page])
    with pytest.raises(IntegrityError, match="cannot be shared"):
        pool.share([page])


def test_check_finds_a_lost_page() -> None:
    """A page that is counted as held but stands in no table is named."""
    pool = PagePool(3)
    kept, lost = pool.allocate(), pool.allocate()

    pool.check([[kept], [lost]])
    with pytest.raises(IntegrityError, match=f"page {lost} counts 1 holders but 0"):
        pool.check([[kept]])
    with pytest.raises(IntegrityError, match="counts 1 holders but 2"):
        pool.check([[kept], [lost, kept]])


@given(st.lists(st.tuples(st.sampled_from(["allocate", "share", "free"]), st.integers(0, 50))))
def test_any_order_of_calls_adds_up(calls: list[tuple[str, int]]) -> None:
    """After every call free + held is the whole pool and the counts match the tables."""
    pool = PagePool(5)
    tables: list[list[int]] = []
    for call, choice in calls:
        if call == "allocate" and pool.num_free:
            tables.append([pool.allocate()])
        elif tables and call == "share":
            table = tables[choice % len(tables)]
            pool.share(table)
            tables.append(table.copy())
        elif tables and call == "free":
            pool.free(tables.pop(choice % len(tables)))
        pool.check(tables)
