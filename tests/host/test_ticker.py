"""Programs that compute are looked at; while all wait, nothing happens."""

from __future__ import annotations

import threading

import pytest

from pie_daemon.host.mailbox import Mailbox
from pie_daemon.host.ticker import Ticker
from support.waiting import until

HANG_S = 30.0


class Ticks:
    def __init__(self, keep_s: float = HANG_S) -> None:
        self.counted = threading.Semaphore(0)
        self.ticker = Ticker(self.counted.release, keep_s)

    def come(self, number: int = 3) -> bool:
        return all(self.counted.acquire(timeout=HANG_S) for _ in range(number))

    def rest(self) -> None:
        """Returns once it rests, and forgets those that have come."""
        until(lambda: self.ticker._rests)
        while self.counted.acquire(blocking=False):
            pass

    @property
    def thread(self) -> threading.Thread:
        assert self.ticker._thread is not None
        return self.ticker._thread


def test_it_ticks_while_anybody_computes() -> None:
    ticks = Ticks()
    for _ in range(2):
        ticks.ticker.enter()
    ticks.ticker.leave()
    assert ticks.come()
    ticks.ticker.leave()


def test_it_rests_while_nobody_does_and_goes_on_with_the_next() -> None:
    ticks = Ticks()
    ticks.ticker.enter()
    thread = ticks.thread
    ticks.ticker.leave()
    ticks.rest()
    assert not ticks.counted.acquire(timeout=0.05)

    ticks.ticker.enter()
    assert ticks.come()
    assert thread is ticks.thread
    ticks.ticker.leave()


def test_its_thread_ends_when_nobody_comes_for_long_and_another_takes_over() -> None:
    ticks = Ticks(keep_s=0.01)
    ticks.ticker.enter()
    thread = ticks.thread
    ticks.ticker.leave()
    thread.join(HANG_S)
    assert not thread.is_alive()

    ticks.ticker.enter()
    assert ticks.come()
    ticks.ticker.leave()


@pytest.mark.parametrize("is_woken", [True, False], ids=["woken", "out of time"])
def test_a_program_that_waits_does_not_compute(is_woken: bool) -> None:
    ticks, mailbox, ready = Ticks(), Mailbox(), threading.Event()
    mailbox.ticker = ticks.ticker
    ticks.ticker.enter()

    def end_wait() -> None:
        ticks.rest()
        ready.set()
        mailbox.wake()

    other = threading.Thread(target=end_wait)
    if is_woken:
        other.start()
        assert mailbox.wait(ready.is_set, HANG_S)
        other.join()
    else:
        assert not mailbox.wait(ready.is_set, 0.01)
    assert ticks.come()
    ticks.ticker.leave()
