"""After a rest a batch waits for programs that are awake, in virtual time."""

from __future__ import annotations

import pytest

from pie_daemon.scheduler.company import BATCHES, LOOK_AGAIN_S, Company

BATCH_S = 0.01


class Programs:
    """So many in line for their turn, so many that have one; and a company that knows."""

    def __init__(self, waiting: int, running: int, share: float = 1.0) -> None:
        self.waiting, self.running = waiting, running
        self.company = Company(lambda: (self.waiting, self.running), share)
        self.company.rested(0.0, BATCH_S)


def test_a_program_that_is_alone_is_not_waited_for() -> None:
    """The one that has asked may still run: nobody else is awake."""
    programs = Programs(waiting=0, running=1)
    assert 0 == programs.company.patience_s(1, 0.0)


def test_a_batch_waits_until_all_that_were_in_line_are_here() -> None:
    programs = Programs(waiting=2, running=1)
    assert programs.company.patience_s(1, 0.0) == LOOK_AGAIN_S
    programs.waiting = 0
    assert programs.company.patience_s(2, 0.001) == LOOK_AGAIN_S
    assert 0 == programs.company.patience_s(3, 0.002)


def test_those_that_fall_asleep_without_asking_are_not_waited_for() -> None:
    programs = Programs(waiting=2, running=1)
    assert programs.company.patience_s(1, 0.0)
    programs.waiting = programs.running = 0
    assert 0 == programs.company.patience_s(1, 0.001)


def test_once_a_batch_has_left_the_next_waits_for_nobody_until_there_was_a_rest() -> None:
    programs = Programs(waiting=0, running=0)
    assert 0 == programs.company.patience_s(1, 0.0)
    programs.waiting = 5
    assert 0 == programs.company.patience_s(1, 0.001)
    programs.company.rested(1.0, BATCH_S)
    assert programs.company.patience_s(1, 1.0)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_it_never_waits_for_longer_than_its_share_of_two_batches(share: float) -> None:
    programs = Programs(waiting=9, running=1, share=share)
    end_s = BATCHES * BATCH_S * share
    assert bool(share) == bool(programs.company.patience_s(1, 0.0))
    assert programs.company.patience_s(1, 0.99 * end_s) == pytest.approx(
        min(LOOK_AGAIN_S, 0.01 * end_s)
    )
    assert 0 == programs.company.patience_s(1, end_s)


def test_nobody_waits_where_nobody_asks() -> None:
    programs = Programs(waiting=9, running=1)
    assert 0 == programs.company.patience_s(0, 0.0)


def test_each_time_that_nobody_came_twice_as_many_rests_go_by_without_waiting() -> None:
    """Others are awake all the time, and want something else."""
    programs = Programs(waiting=9, running=1)
    waited = []
    for number in range(1, 40):
        if number > 1:
            programs.company.rested(float(number), BATCH_S)
        waited.append(bool(programs.company.patience_s(1, float(number if number > 1 else 0))))
        programs.company.patience_s(1, number + 0.5)
    assert [number for number, did in enumerate(waited) if did] == [0, 2, 6, 14, 30]


def test_once_somebody_came_it_waits_after_every_rest_again() -> None:
    programs = Programs(waiting=2, running=1)
    programs.company.patience_s(1, 0.0)
    programs.company.patience_s(1, 0.5)  # in vain
    programs.company.rested(1.0, BATCH_S)
    assert 0 == programs.company.patience_s(1, 1.0)
    for now_s in (2.0, 3.0):
        programs.company.rested(now_s, BATCH_S)
        assert programs.company.patience_s(1, now_s)
        programs.company.patience_s(3, now_s + 0.001)
