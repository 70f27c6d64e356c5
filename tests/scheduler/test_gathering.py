"""How long a batch waits for the programs that the last one has answered, in virtual time."""

from __future__ import annotations

from collections import Counter

import pytest

from pie_daemon.scheduler.gathering import LONGEST_S, Gathering

BATCH_S = 0.01
HERE = [f"here {number}" for number in range(31)]


def after_a_batch(*owners: str, share: float = 1.0) -> Gathering:
    """At second 0 a batch of `BATCH_S` has answered these, one row each; they came back before."""
    gathering = Gathering(share)
    gathering.computed(BATCH_S)
    gathering.answered(Counter(owners), -1.0)
    for owner in owners:
        gathering.came(owner, -1.0)
    gathering.answered(Counter(owners), 0.0)
    return gathering


def test_a_batch_waits_for_a_program_that_was_just_answered() -> None:
    """With one here and one away, it may take as long as a batch; then the batch leaves."""
    gathering = after_a_batch("away")

    assert pytest.approx(BATCH_S) == gathering.patience_s(1, 0.0)
    assert pytest.approx(BATCH_S / 2) == gathering.patience_s(1, BATCH_S / 2)
    assert 0 == gathering.patience_s(1, BATCH_S)


def test_it_waits_longer_where_missing_a_prompts_batch_costs_more() -> None:
    """Ten tokens more in a batch took twice as long, so twenty more are three batches."""
    gathering = after_a_batch("away")
    gathering.computed_prompts(2 * BATCH_S, 10)

    assert pytest.approx(3 * BATCH_S) == gathering.patience_s(1, 0.0, 20)
    assert pytest.approx(BATCH_S) == gathering.patience_s(1, 0.0)


def test_a_program_with_a_prompt_may_come_back_later() -> None:
    """It has been away for no longer than what it would have missed took."""
    gathering = after_a_batch("away")
    gathering.computed_prompts(2 * BATCH_S, 10)
    gathering.patience_s(1, BATCH_S)  # from now on it counts as slow
    gathering.came("away", 1.5 * BATCH_S, 11)
    gathering.answered(Counter(["away"]), 1.0)

    assert gathering.patience_s(1, 1.0) > 0


def test_many_do_not_wait_long_for_one() -> None:
    """What the rows that are here lose together is what the missing one would lose alone."""
    gathering = after_a_batch("away")

    assert pytest.approx(BATCH_S / 20) == gathering.patience_s(20, 0.0)


def test_nobody_waits_longer_than_a_batch_for_many() -> None:
    """Those that are not back by then have missed as much already as the next batch would cost."""
    gathering = after_a_batch(*HERE)

    assert pytest.approx(BATCH_S) == gathering.patience_s(1, 0.0)


def test_the_time_that_rows_have_waited_counts_for_each_of_them() -> None:
    """One waits alone for half a batch, then two wait for the third."""
    gathering = after_a_batch("one", "two", "three")
    gathering.came("one", 0.0)
    gathering.patience_s(1, 0.0)
    gathering.came("two", BATCH_S / 2)

    assert pytest.approx(BATCH_S / 4) == gathering.patience_s(2, BATCH_S / 2)


def test_the_scheduler_is_woken_by_the_first_the_half_and_the_last() -> None:
    """Not by each of many: it has nothing to decide while most are still on their way."""
    gathering = after_a_batch(*HERE[:8])
    gathering.patience_s(0, 0.0)
    woken = []
    for number, owner in enumerate(HERE[:8], 1):
        if gathering.came(owner, 0.0):
            woken.append(number)
            gathering.patience_s(number, 0.0)

    assert [1, 5, 7, 8] == woken


def test_the_batch_leaves_as_soon_as_all_are_back() -> None:
    """There is nothing left to wait for."""
    gathering = after_a_batch("one", "two")
    gathering.patience_s(0, 0.0)

    assert gathering.came("one", 0.001)
    assert gathering.patience_s(1, 0.001) > 0
    assert gathering.came("two", 0.002)
    assert 0 == gathering.patience_s(2, 0.002)


def test_without_anybody_here_there_is_no_batch_to_hold_back() -> None:
    """The scheduler waits for the first one as it always does."""
    assert 0 == after_a_batch("away").patience_s(0, 0.0)


def test_a_program_that_stays_away_is_waited_for_once() -> None:
    """Nobody waits for one that thinks for long, until it comes back at once again."""
    gathering = after_a_batch("away")
    assert 0 == gathering.patience_s(1, BATCH_S)
    gathering.came("away", 5.0)
    gathering.answered(Counter(["away"]), 6.0)

    assert 0 == gathering.patience_s(1, 6.0)

    gathering.came("away", 6.0 + BATCH_S / 2)
    gathering.answered(Counter(["away"]), 7.0)

    assert gathering.patience_s(1, 7.0) > 0


def test_a_first_answer_to_a_pass_is_waited_for_a_whole_one_is_not() -> None:
    """Most programs that have had a whole answer end."""
    gathering = Gathering()
    gathering.computed(BATCH_S)
    gathering.answered(Counter(["loop"]), -1.0, {"loop"})
    assert gathering.patience_s(1, -1.0) > 0

    gathering.answered(Counter(["new"]), 0.0)
    assert 0 == gathering.patience_s(1, 0.0)

    gathering.came("new", BATCH_S / 2)
    gathering.answered(Counter(["new"]), 1.0)

    assert gathering.patience_s(1, 1.0) > 0


def test_nobody_waits_for_a_program_that_has_ended() -> None:
    """Its end is known before the time is up."""
    gathering = after_a_batch("away")
    gathering.gone("away")

    assert 0 == gathering.patience_s(1, 0.0)


def test_a_share_of_nothing_never_waits() -> None:
    """The operator may prefer batches that leave at once."""
    assert 0 == after_a_batch("away", share=0.0).patience_s(1, 0.0)


def test_slow_batches_do_not_make_it_wait_for_seconds() -> None:
    """A program that is away for long does something else, whatever a batch takes."""
    gathering = after_a_batch("away")
    gathering.computed(100.0)

    assert LONGEST_S == gathering.patience_s(1, 0.0)


def test_what_comes_unexpectedly_is_looked_at_at_once() -> None:
    """Someone who was not answered by the last batch has nobody to wait for."""
    assert after_a_batch().came("new", 0.0)


def test_after_a_rest_it_waits_for_those_that_are_awake() -> None:
    """Nobody was answered, but two others were woken together with the one that asks."""
    gathering = Gathering(awake=lambda: (2, 1))
    gathering.computed(BATCH_S)
    assert 0 == gathering.patience_s(1, 0.0)
    gathering.rested(0.0)
    assert 0 < gathering.patience_s(1, 0.0) < BATCH_S
