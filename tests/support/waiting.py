"""Waiting for a condition with a deadline, the only kind of waiting in tests."""

from __future__ import annotations

import time
from collections.abc import Callable

_LOOK_S = 0.002


def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Returns when the condition holds; fails when it does not within the timeout."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not within {timeout_s} s: {condition}"
        time.sleep(_LOOK_S)
