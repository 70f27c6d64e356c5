"""What `make bench` is made of: questions, each answered by one table and one picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks.targets import Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Answer:
    title: str
    """What was measured and on what, in one line; shown above the table and the picture."""
    columns: list[str]
    rows: list[list[str]]
    """Cells as they are printed; the first one of a row names it."""
    measured: dict[str, Any]
    """Every sample behind the table, for JSON: what a reader needs to check it."""
    notes: list[str] = field(default_factory=list)
    """What a reader must know to read the table right, losses and their reasons included."""
    targets: list[Target] = field(default_factory=list)
    """What was promised of this, for the summary."""
    draw: Callable[[Figure], None] | None = None
    """Draws the picture into an empty matplotlib figure."""


class Unanswerable(Exception):
    """It cannot be asked here; the message says what to do about it."""


class Question(Protocol):
    """One thing to find out. Everything it compares takes turns within the one call."""

    name: str
    """Also the stem of its files under docs/benchmarks/."""

    def answer(self, *, quick: bool) -> Answer:
        """`quick` takes a sixth of the time or less, with fewer rounds and shorter runs."""
        ...
