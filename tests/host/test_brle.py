"""Bit rows as programs write them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferlet import masks
from pie_daemon.errors import PieError
from pie_daemon.host.brle import packed


@pytest.mark.parametrize(
    ("runs", "bits"),
    [([0, 3], "111"), ([3], "000"), ([2, 3], "00111"), ([0, 1, 1, 1], "101"), ([], ""), ([0], "")],
)
def test_the_first_run_is_false(runs: list[int], bits: str) -> None:
    """Bit i of the row is bit i % 8 of byte i // 8."""
    number = sum(1 << place for place, bit in enumerate(bits) if bit == "1")
    assert (number.to_bytes(-(-len(bits) // 8), "little"), len(bits)) == packed(runs, 9, "it")


@given(st.lists(st.booleans(), max_size=200))
def test_it_is_what_the_guest_package_means(row: list[bool]) -> None:
    """Both sides agree on the polarity, in both directions and for both ways to write a row."""
    places = [place for place, bit in enumerate(row) if bit]
    for runs in (masks.runs(row), masks.runs_of(places, len(row))):
        data, num_bits = packed(runs, 200, "it")
        assert len(row) == num_bits
        assert row == [bool(data[place // 8] >> place % 8 & 1) for place in range(num_bits)]


def test_what_is_too_long_is_refused_before_it_is_built() -> None:
    """By its bits or by its runs; thousands of runs are nothing."""
    for runs in ([0, 1 << 31, 0, 1 << 31], [0] * 1000):
        with pytest.raises(PieError, match="bits are the most"):
            packed(runs, 100, "it")
    started = time.perf_counter()
    packed([13, 12] * 2500, 1 << 17, "it")
    assert time.perf_counter() - started < 1
