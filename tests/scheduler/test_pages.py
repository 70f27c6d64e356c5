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


def test_a_published_page_is_kept_until_its_place_is_needed() -> None:
    """Without holders it counts as free, can be held again, and is evicted after all free ones."""
    pool = PagePool(3)
    kept, other = pool.allocate(), pool.allocate()
    pool.publish(kept, b"kept")
    pool.publish(other, b"other")
    pool.free([other, kept])
    assert (3, 2, kept) == (pool.num_free, pool.num_cached, pool.find(b"kept"))

    pool.share([kept])
    pool.free([kept])
    taken = [pool.allocate(), pool.allocate()]

    assert other == taken[1]
    assert (None, kept) == (pool.find(b"other"), pool.find(b"kept"))
    pool.check([taken])


def test_publishing_is_refused_twice_and_for_free_pages() -> None:
    """One page has one content, and one content has one page."""
    pool = PagePool(2)
    page, other = pool.allocate(), pool.allocate()
    pool.publish(page, b"key")
    for wrong, key in ((page, b"new"), (other, b"key")):
        with pytest.raises(IntegrityError, match="published already"):
            pool.publish(wrong, key)
    pool.free([other])
    with pytest.raises(IntegrityError, match="free or published"):
        pool.publish(other, b"new")
    pool.withdraw(page)

    pool.free([page])
    assert (0, None) == (pool.num_cached, pool.find(b"key"))
    pool.check([])


CALLS = ["allocate", "share", "free", "publish", "withdraw", "revive"]


@given(st.lists(st.tuples(st.sampled_from(CALLS), st.integers(0, 50))))
def test_any_order_of_calls_adds_up(calls: list[tuple[str, int]]) -> None:
    """After every call free + held + cached is the whole pool and the counts match the tables."""
    pool = PagePool(5)
    tables: list[list[int]] = []
    for call, choice in calls:
        key = bytes([choice % 4])
        table = tables[choice % len(tables)] if tables else []
        cached = pool.find(key)
        if call == "allocate" and pool.num_free:
            tables.append([pool.allocate()])
        elif call == "share" and table:
            pool.share(table)
            tables.append(table.copy())
        elif call == "free" and table:
            pool.free(tables.pop(choice % len(tables)))
        elif call == "publish" and table and cached is None and pool.key_of(table[0]) is None:
            pool.publish(table[0], key)
        elif call == "withdraw" and table:
            pool.withdraw(table[0])
        elif call == "revive" and cached is not None:
            pool.share([cached])
            tables.append([cached])
        pool.check(tables)
