"""Budgets that a program shares with the programs it launches."""

from __future__ import annotations

import threading

from pie_daemon.host.stop import CpuMeter
from pie_daemon.runtime.budget import SharedTokens
from pie_daemon.runtime.events import EventLog


def test_tokens_are_taken_from_everyone_above_or_from_nobody() -> None:
    """A refusal anywhere takes nothing anywhere."""
    root = SharedTokens(10)
    child = SharedTokens(None, root)
    grandchild = SharedTokens(8, child)

    assert grandchild.spend(6)
    assert (4, 4, 2) == (root.left(), child.left(), grandchild.left())
    assert not grandchild.spend(3)
    assert root.spend(3)
    assert not grandchild.spend(2)
    assert (1, 1, 1) == (root.left(), child.left(), grandchild.left())
    assert SharedTokens(None, SharedTokens(None)).left() is None


def test_tokens_spent_from_many_threads_are_exactly_those_given() -> None:
    """None twice, none lost."""
    root = SharedTokens(1000)
    spent: list[int] = []

    def work() -> None:
        own = SharedTokens(None, root)
        spent.append(sum(own.spend(1) for _ in range(500)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (1000, 0) == (sum(spent), root.left())


def test_cpu_time_of_a_child_counts_against_its_parents() -> None:
    """The parent's own usage stays its own, its grant does not."""
    root = CpuMeter(0.01)
    child = CpuMeter(None, CpuMeter(100, root))
    child.start()
    while child.used_s <= 0.01:
        child.charge()
    stop = child.exceeded()

    assert stop is not None
    assert "the grant is 0.01 s, shared" in stop.message
    assert (0.0, 0.0, 0.0) == (root.used_s, root.left_s(), child.left_s())
    assert root.exceeded() is not None
    assert CpuMeter().left_s() is None


def test_a_log_without_a_reader_makes_way() -> None:
    """The newest events stay, numbered as they were, and there is always one."""
    log = EventLog(max_kept_bytes=300)
    for number in range(10):
        log.append("message", b"%d" % number * 36)
    kept = log.read(0, 10**6)

    assert [8, 9, 10] == [event.seq for event in kept]
    assert 300 == log.unacked_bytes
    log.append("blob", b"x" * 1000)
    assert [11] == [event.seq for event in log.read(0, 10**6)]
