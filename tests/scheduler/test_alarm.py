"""The scheduler's thread is woken, and bursts are ended, by one and the same event."""

from __future__ import annotations

import pytest

from pie_backend.batch import Batch
from pie_daemon.scheduler.alarm import Alarm

BURST = Batch(step=5, rows=[], passes=16)


@pytest.fixture
def interrupted() -> list[int]:
    return []


@pytest.fixture
def alarm() -> Alarm:
    return Alarm()


def test_it_interrupts_a_burst_once(alarm: Alarm, interrupted: list[int]) -> None:
    with alarm.ends(BURST, interrupted.append):
        alarm.set()
        alarm.set()
    assert (interrupted, alarm.is_set()) == ([5], True)


def test_nothing_else_is_interrupted(alarm: Alarm, interrupted: list[int]) -> None:
    alarm.set()
    alarm.clear()
    with alarm.ends(Batch(step=4, rows=[]), interrupted.append):
        alarm.set()
    alarm.clear()
    with alarm.ends(BURST, interrupted.append):
        pass
    alarm.set()
    assert interrupted == []


def test_what_came_just_before_a_burst_interrupts_it(alarm: Alarm, interrupted: list[int]) -> None:
    alarm.set()
    with alarm.ends(BURST, interrupted.append):
        assert interrupted == [5]
