"""What was promised, and how a run says whether it was kept."""

from __future__ import annotations

import pytest

from benchmarks.targets import Target, headline, ratio

SIDES = ("Pie", "vLLM")


def test_more_of_what_is_wanted_is_ahead() -> None:
    """Twice the tokens a second is 2.00x."""
    target = ratio("8 rows", {"Pie": 1500.0, "vLLM": 750.0}, SIDES, 1.5, "tokens/s")

    assert target.met
    assert [
        "decode, 8 rows",
        "1,500 tokens/s",
        "vLLM: 750 tokens/s",
        "2.00x",
        ">= 1.50x",
        "yes",
    ] == (target.row("decode"))


def test_less_time_is_ahead() -> None:
    """Twice the milliseconds is 0.50x, though the number is the larger one."""
    target = ratio("p99", {"Pie": 60.0, "vLLM": 30.0}, SIDES, 1.0, "ms")

    assert not target.met
    assert ["0.50x", ">= 1.00x", "NO"] == target.row("arrivals")[-3:]


def test_what_needs_a_peer_is_open_without_one() -> None:
    """A quick run has no peers; it neither keeps nor breaks what was promised against them."""
    target = ratio("1 row", {"Pie": 90.0}, SIDES, 1.5, "tokens/s")

    assert target.met is None
    assert ["90.0 tokens/s", "", "", ">= 1.50x", "not asked"] == target.row("decode")[1:]


@pytest.mark.parametrize(("result", "met"), [(19.0, True), (21.0, False)])
def test_a_bound_may_be_from_above(result: float, met: bool) -> None:
    """Costs have to stay below theirs."""
    target = Target("u32, alone", result, 20, "us", "at most")

    assert met == target.met
    assert "<= 20 us" == target.row("host_calls")[4]


def test_the_headline_counts_what_was_asked() -> None:
    """Targets that nobody measured are neither met nor missed."""
    targets = [Target("a", 2.0, 1.0), Target("b", 0.5, 1.0), Target("c", None, 1.0)]

    assert "1 of 2 targets met" == headline(targets)
