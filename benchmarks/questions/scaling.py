"""What a token costs as programs, contexts and branches grow; nothing may grow without a reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import pictures
from benchmarks.contenders.bare_loop import pages_for
from benchmarks.contenders.programs import Programs
from benchmarks.load import Load
from benchmarks.model import LONG, checkpoint, prompts
from benchmarks.question import Answer
from benchmarks.rounds import say

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHORT_PROMPT, BRANCH_PROMPT, NEW_TOKENS = 16, 512, 32
PROGRAMS, CONTEXTS, BRANCHES = "programs", "tokens of context", "branches"
# What a token may cost when there is twice as much of it, in relation to before: programs and
# branches share a step, so that each more makes none dearer; attention reads the whole context.
ALLOWED = {PROGRAMS: 1.05, CONTEXTS: 2.1, BRANCHES: 1.05}

Curve = dict[int, list[float]]
"""Microseconds per token, of every round, by how many there are."""


class Scaling:
    name = "scaling"

    def answer(self, *, quick: bool) -> Answer:
        pages = max(2 * pages_for(8192), 256 * pages_for(SHORT_PROMPT + NEW_TOKENS)) + 512
        with closing(Programs(checkpoint(LONG), pages, "branches")) as daemon:
            measure = _Measure(daemon, 1 if quick else 3)
            curves = {
                (PROGRAMS, "through the client"): measure.curve(
                    PROGRAMS, _powers(1, 16 if quick else 256), measure.programs_us
                ),
                (CONTEXTS, "decode, 1 program"): measure.curve(
                    CONTEXTS, _powers(128, 512 if quick else 8192), measure.decode_us
                ),
                (CONTEXTS, "prefill"): measure.curve(
                    CONTEXTS, _powers(128, 512 if quick else 8192), measure.prefill_us
                ),
                (BRANCHES, f"of {BRANCH_PROMPT} tokens"): measure.curve(
                    BRANCHES, _powers(1, 8 if quick else 64), measure.branches_us
                ),
            }
        return _answer(curves)


class _Measure:
    def __init__(self, daemon: Programs, rounds: int) -> None:
        self._daemon = daemon
        self._rounds = rounds
        self._seed = 0

    def curve(self, what: str, points: list[int], measure: Callable[[int], float]) -> Curve:
        """Up and down in turn, so that what drifts tilts no curve."""
        curve: Curve = {point: [] for point in points}
        measure(points[0])
        for number in range(self._rounds):
            for point in points[:: -1 if number % 2 else 1]:
                curve[point].append(measure(point))
                say(f"  scaling, {point} {what}: {curve[point][-1]:.0f} us/token")
        return curve

    def programs_us(self, num_programs: int) -> float:
        self._seed += 1
        load = Load(prompts(num_programs, SHORT_PROMPT, self._seed), NEW_TOKENS)
        return 1e6 / self._daemon.run(load).tokens_per_s(load)

    def decode_us(self, length: int) -> float:
        return _decode_us(self._branches(length, 1))

    def prefill_us(self, length: int) -> float:
        return 1e6 * self._branches(length, 1)["prefill_s"] / length

    def branches_us(self, branches: int) -> float:
        return _decode_us(self._branches(BRANCH_PROMPT, branches))

    def _branches(self, length: int, branches: int) -> dict[str, float]:
        self._seed += 1
        said: dict[str, float] = self._daemon.ask(
            "branches",
            length=length,
            branches=branches,
            new_tokens=NEW_TOKENS,
            seed=self._seed,
        )
        return said


def _decode_us(said: dict[str, float]) -> float:
    return 1e6 * said["decode_s"] / said["num_tokens"]


def _powers(first: int, last: int) -> list[int]:
    return [first << step for step in range(int(math.log2(last // first)) + 1)]


def _answer(curves: dict[tuple[str, str], Curve]) -> Answer:
    medians = {
        key: {point: median(samples) for point, samples in curve.items()}
        for key, curve in curves.items()
    }
    rows = [row for key, curve in medians.items() for row in rows_of(*key, curve)]
    steep = [f"{row[0]} at {row[1]}: {row[3]}" for row in rows if row[4]]
    return Answer(
        title="Microseconds per token as there is more of everything, 88M, bfloat16 (medians)",
        columns=["", "so many", "us per token", "to the one before", "beyond what it may"],
        rows=rows,
        measured={f"{what}, {how}": curve for (what, how), curve in curves.items()},
        notes=[
            "Programs and branches may not make a token dearer (5 % for noise); a token may cost "
            "twice as much in twice the context, whose keys and values it has to read.",
            f"Beyond that: {'; '.join(steep) or 'nothing'}.",
        ],
        draw=partial(_draw, medians),
    )


def rows_of(what: str, how: str, curve: dict[int, float]) -> list[list[str]]:
    rows: list[list[str]] = []
    before = 0.0
    for point, us in curve.items():
        growth = us / before if before else 0.0
        rows.append(
            [
                f"{what}, {how}",
                f"{point:,}",
                f"{us:,.0f}",
                f"{growth:.2f}x" if before else "",
                "*" if growth > ALLOWED[what] else "",
            ]
        )
        before = us
    return rows


def _draw(medians: dict[tuple[str, str], dict[int, float]], figure: Figure) -> None:
    figure.set_size_inches(12, 4)
    axes = figure.subplots(1, len(ALLOWED))
    for axis, what in zip(axes, ALLOWED, strict=True):
        series = {how: curve for (of, how), curve in medians.items() if of == what}
        pictures.curves(axis, series, what, "us per token")
