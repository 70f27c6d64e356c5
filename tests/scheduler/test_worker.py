"""The lives of a backend, in virtual time."""

from __future__ import annotations

from threading import Event

import pytest

from pie_backend.base import Backend, BackendError
from pie_backend.batch import BackendConfig
from pie_backend.dummy import DummyBackend
from pie_backend.lifeline import Lifeline
from pie_daemon.scheduler.backoff import Backoff
from pie_daemon.scheduler.worker import Worker

CONFIG = BackendConfig(name="dummy", kind="dummy", path="", kv_pages=8)
GONE = BackendError("it is gone")


class Time:
    """Passes only while somebody waits."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.waits: list[float] = []

    def clock(self) -> float:
        return self.now_s

    def wait(self, event: Event, seconds: float) -> None:
        self.waits.append(seconds)
        self.now_s += seconds


def life(time: Time, num_failures: int) -> Worker:
    """The next so many cannot start."""
    left = [num_failures]

    def build(lifeline: Lifeline) -> Backend:
        left[0] -= 1
        if left[0] >= 0:
            raise BackendError(f"still {left[0]}")
        return DummyBackend(CONFIG)

    return Worker(DummyBackend(CONFIG), build, clock=time.clock, wait=time.wait)


def test_pauses_grow_up_to_a_limit() -> None:
    """The first try comes at once; a backend that did well for a minute begins anew."""
    backoff = Backoff(first_s=1, most_s=10, well_s=60)
    assert [0, 1, 2, 4, 8, 10, 10] == [backoff.failed(59) for _ in range(7)]
    assert [0, 1] == [backoff.failed(60), backoff.failed(0)]
    backoff.forgive()
    assert [0, 1] == [backoff.failed(), backoff.failed()]
    for _ in range(3000):
        backoff.failed()
    assert 10 == backoff.failed()


def test_it_tries_until_there_is_one() -> None:
    """And tells how long that took, and what was wrong last."""
    time = Time()
    worker = life(time, 4)
    worker.bury(GONE)
    assert ("restarting", 1, 0) == astuple(worker)
    assert worker.next() is not None
    worker.settle()
    assert [1, 2, 4, 8] == time.waits
    stats = worker.stats()
    assert ("serving", 1, "still 0", 15) == (
        stats.state,
        stats.deaths,
        stats.last_cause,
        stats.last_pause_s,
    )


def test_a_short_life_does_not_count_as_doing_well() -> None:
    """A crash loop waits longer and longer, however well each start goes."""
    time = Time()
    worker = life(time, 0)
    for lived_s in (10, 10, 10, 60, 10):
        time.now_s += lived_s
        worker.bury(GONE)
        worker.next()
        worker.settle()
    assert [1, 2, 1] == time.waits


def test_what_died_with_nobody_asking_is_noticed() -> None:
    """By whoever listens, and by the next who wants to use it."""
    woken: list[int] = []
    lifeline = Lifeline()
    worker = Worker(DummyBackend(CONFIG), lifeline=lifeline)
    worker.listen(lambda: woken.append(1))
    worker.use()
    lifeline.report("killed")
    assert [1] == woken
    with pytest.raises(BackendError, match="killed"):
        worker.use()
    worker.listen(lambda: woken.append(2))
    assert [1, 2] == woken


def test_one_life_only() -> None:
    """Without a way to build another one the end is the end."""
    worker = Worker(DummyBackend(CONFIG))
    with pytest.raises(BackendError, match="it is gone"):
        worker.bury(GONE)
    assert ("ended", "it is gone") == (worker.stats().state, worker.stats().trouble)


def test_the_end_of_all_lives() -> None:
    """After `stop` there is no next one."""
    worker = life(Time(), 0)
    worker.stop()
    assert worker.next() is None
    with pytest.raises(BackendError):
        worker.bury(GONE)


def astuple(worker: Worker) -> tuple[str, int, float]:
    stats = worker.stats()
    return stats.state, stats.attempt, stats.next_attempt_s
