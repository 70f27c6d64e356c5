"""Telling programs that there is something to take."""

from __future__ import annotations

import pytest

from pie_daemon.scheduler.delivery import tell


def test_everybody_is_told_before_anybody_is_woken() -> None:
    """So that whoever wakes finds what all of them have sent."""
    heard: list[str] = []
    tell(
        [
            lambda: heard.append("a") or [lambda: heard.append("wake a")],
            lambda: heard.append("b"),
            lambda: heard.append("c") or [lambda: heard.append("wake c")],
        ]
    )
    assert ["a", "b", "c", "wake a", "wake c"] == heard


def test_a_failure_wakes_those_who_have_been_told() -> None:
    """Nobody waits for ever because of another."""
    heard: list[str] = []

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        tell([lambda: [lambda: heard.append("woken")], fail])
    assert ["woken"] == heard
