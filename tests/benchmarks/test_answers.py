"""What questions make of their samples."""

from __future__ import annotations

import pytest

from benchmarks.load import Timing
from benchmarks.questions import arrivals, scaling


def test_waits_are_counted_from_the_arrival() -> None:
    """A request that comes late has not waited before it came."""
    timing = Timing(9.0, [], [0.25, 2.5], [])

    assert pytest.approx([250.0, 500.0]) == arrivals.waits_ms([timing], [0.0, 2.0])


def test_arrivals_are_the_same_for_everybody() -> None:
    """The gaps are random, but not from one contender to the next; they only grow."""
    times = arrivals.schedule(9)

    assert times == arrivals.schedule(9) == sorted(times)
    assert times == arrivals.schedule(32)[:9]


def test_quantiles_lie_within_what_was_measured() -> None:
    """The 99th of a hundred and one is the last but one, not a guess beyond the largest."""
    values = [float(value) for value in range(101)]

    assert (50.0, 99.0) == (arrivals.quantile(values, 50), arrivals.quantile(values, 99))
    assert 3.0 >= arrivals.quantile([1.0, 2.0, 3.0], 99)


def test_a_curve_is_judged_by_its_steepest_doubling() -> None:
    """Getting cheaper at first excuses nothing later."""
    programs = scaling.target(scaling.PROGRAMS, "launch to end", {1: 100, 2: 50, 4: 60, 8: 60})

    assert 1.2 == programs.result
    assert not programs.met


def test_a_token_may_cost_twice_as_much_in_twice_the_context() -> None:
    """Its keys and values have to be read; more than that has no reason."""
    fine = scaling.target(scaling.CONTEXTS, "decode", {128: 100, 256: 190, 512: 370})
    steep = scaling.target(scaling.CONTEXTS, "decode", {128: 100, 256: 190, 512: 500})

    assert (True, False) == (fine.met, steep.met)
