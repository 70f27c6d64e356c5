"""Contenders take turns: the machine's speed drifts, and it shall drift for all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")


def say(text: str) -> None:
    """Progress, for whoever watches; the result is what goes to stdout."""
    print(text, file=sys.stderr, flush=True)


def take_turns(
    contenders: Mapping[str, Callable[[int], T]], rounds: int, label: str = ""
) -> dict[str, list[T]]:
    """What each measured in each round; the order alternates.

    Each is called with the number of the round, for work that is new to everybody and the same for
    all. Round -1 only warms up.
    """
    samples: dict[str, list[T]] = {name: [] for name in contenders}
    for number in range(-1, rounds):
        for name in list(contenders)[:: 1 if number % 2 else -1]:
            measured = contenders[name](number)
            say(f"  {label}, round {number + 1} of {rounds}, {name}: {_short(measured)}")
            if number >= 0:
                samples[name].append(measured)
    return samples


def _short(measured: object) -> str:
    return f"{measured:.4g}" if isinstance(measured, float) else str(measured)[:80]
