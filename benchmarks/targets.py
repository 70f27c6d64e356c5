"""What Pie promises of its speed, and what became of each promise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from benchmarks import numbers
from benchmarks.numbers import quantity

Direction = Literal["at least", "at most"]
Bound = tuple[float, str, Direction]
"""With its unit."""
_TIMES = ("s", "ms", "us")
_SIGNS = {"at least": ">=", "at most": "<="}

COLUMNS = ["", "Pie", "compared with", "result", "target", "met"]


class Target(msgspec.Struct, frozen=True):
    what: str
    """Within its question: "8 rows"."""
    result: float | None
    """In `unit`. None when it was not asked, as what needs a peer in a quick run."""
    bound: float
    unit: str = "x"
    direction: Direction = "at least"
    pie: str = ""
    """What a ratio was made of, as it is printed; so is the other side."""
    other: str = ""

    @property
    def met(self) -> bool | None:
        if self.result is None:
            return None
        return (
            self.result >= self.bound
            if self.direction == "at least"
            else (self.result <= self.bound)
        )

    @property
    def _bound(self) -> str:
        return numbers.ratio(self.bound) if self.unit == "x" else f"{self.bound:g} {self.unit}"

    def row(self, question: str) -> list[str]:
        return [
            f"{question}, {self.what}",
            self.pie,
            self.other,
            "" if self.result is None else quantity(self.result, self.unit),
            f"{_SIGNS[self.direction]} {self._bound}",
            {True: "yes", False: "NO", None: "not asked"}[self.met],
        ]


def ratio(
    what: str, values: Mapping[str, float], sides: tuple[str, str], bound: float, unit: str
) -> Target:
    """Above 1 the first of the two sides is ahead. Of times, less is better.

    The result is None where the second side was not asked.
    """
    pie, other = values[sides[0]], values.get(sides[1])
    if other is None:
        return Target(what, None, bound, pie=quantity(pie, unit))
    result = other / pie if unit in _TIMES else pie / other
    return Target(
        what, result, bound, pie=quantity(pie, unit), other=f"{sides[1]}: {quantity(other, unit)}"
    )


def headline(targets: Iterable[Target]) -> str:
    asked = [target.met for target in targets if target.met is not None]
    return f"{sum(asked)} of {len(asked)} targets met"
