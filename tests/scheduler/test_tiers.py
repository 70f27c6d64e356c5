"""Slots in host memory, and the names of pages whose content has none."""

from __future__ import annotations

import pytest

from pie_daemon.scheduler.pages import IntegrityError, PagePool
from pie_daemon.scheduler.suspension import PrivateKeys, Suspended
from pie_daemon.scheduler.tiers import HostTier

A, B, C, D = b"a", b"b", b"c", b"d"


def test_the_page_moved_longest_ago_makes_room() -> None:
    """With two slots the third page takes the place of the first."""
    host = HostTier(2)
    for page, key in enumerate((A, B, C)):
        host.keep(page, key)

    assert [False, True, True] == [key in host for key in (A, B, C)]
    assert ([(0, 0), (1, 1), (2, 0)], []) == host.depart()
    host.check()


def test_wanted_pages_do_not_make_room() -> None:
    """Neither those here nor those to come are driven out while somebody waits for them."""
    host = HostTier(2)
    host.keep(0, A)
    host.want([A, C])
    host.keep(1, B)
    host.keep(2, C)
    assert [True, False, True] == [key in host for key in (A, B, C)]
    host.keep(3, D)
    assert D not in host

    host.unwant([A, C])
    host.keep(3, D)

    assert [False, True, True] == [key in host for key in (A, C, D)]
    host.check()


def test_a_slot_that_is_read_is_not_written_by_the_same_batch() -> None:
    """It becomes free when the batch has left."""
    host = HostTier(1)
    host.keep(0, A)
    host.depart()
    host.restore(host.take(A), 5)
    host.keep(1, B)
    assert B not in host
    assert ([], [(0, 5)]) == host.depart()

    host.keep(1, B)

    assert B in host
    assert (2, 1) == (host.num_evicted, host.num_restored)
    host.check()


def test_without_slots_nothing_is_kept() -> None:
    """The tier may be empty; discarding what is not there is fine."""
    host = HostTier(0)
    host.keep(0, A)
    host.discard(A)

    assert (0, ([], [])) == (host.num_used, host.depart())
    host.check()


def test_lost_slots_are_noticed() -> None:
    """The check counts them."""
    host = HostTier(2)
    host.keep(0, A)
    host.take(A)
    with pytest.raises(IntegrityError, match="1 accounted for, not 2"):
        host.check()


def test_the_pool_tells_what_it_evicts() -> None:
    """Of cached pages only, with the key that they had."""
    evicted: list[tuple[int, bytes]] = []
    pool = PagePool(2, lambda page, key: evicted.append((page, key)))
    first, second = pool.allocate(), pool.allocate()
    pool.publish(first, A)
    pool.free([first, second])
    assert [second, first] == [pool.allocate(), pool.allocate()]

    assert [(first, A)] == evicted
    assert pool.find(A) is None
    pool.check()


def test_a_withdrawn_cached_page_is_free() -> None:
    """Its content is of use to nobody."""
    pool = PagePool(1)
    page = pool.allocate()
    pool.publish(page, A)
    pool.free([page])
    pool.withdraw(page)

    assert (1, 0) == (pool.num_free, pool.num_cached)
    pool.check()


def test_private_names_are_forgotten_with_the_last_who_knows_them() -> None:
    """Names by content are not counted."""
    forgotten: list[bytes] = []
    private = PrivateKeys(forgotten.append)
    key = private.create()
    for _ in range(2):
        private.remember([A, key])
    private.forget([A, key])
    assert key in private
    private.forget([A, key])

    assert key not in private
    assert [key] == forgotten
    assert key != private.create()


def test_a_memory_is_cut_with_its_context() -> None:
    """To whole pages and into one; nothing is left of nothing."""
    memory = Suspended([A, B, C], 10)

    assert Suspended([A, B], 6) == memory.cut(6, 4)
    assert memory == memory.cut(12, 4)
    assert memory.cut(0, 4) is None
    assert (B, None, C) == (
        memory.key_of_whole(1, 4),
        memory.key_of_whole(2, 4),
        memory.key_of_part(2, 4),
    )
