"""What a token costs as programs, contexts and branches grow; nothing may grow without a reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import pictures
from benchmarks.contenders.bare_loop import pages_for
from benchmarks.contenders.programs import Programs
from benchmarks.load import Load
from benchmarks.model import LONG, checkpoint, prompts
from benchmarks.numbers import number, ratio
from benchmarks.question import Answer
from benchmarks.rounds import say
from benchmarks.targets import Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHORT_PROMPT, BRANCH_PROMPT, NEW_TOKENS = 16, 512, 32
PROGRAMS, CONTEXTS, BRANCHES = "programs", "tokens of context", "branches"
NOISE = 1.1
# What a token may cost when there is twice as much of it, in relation to before: programs and
# branches share a step, so that each more makes none dearer; attention reads the whole context.
ALLOWED = {PROGRAMS: NOISE, CONTEXTS: 2 * NOISE, BRANCHES: NOISE}

Curve = dict[int, list[float]]
"""Microseconds per token, of every round, by how many there are."""
Key = tuple[str, str]
"""Of what there is more, and how it is measured."""


class Scaling:
    name = "scaling"

    def answer(self, *, quick: bool) -> Answer:
        programs, context, branches = (8, 512, 8) if quick else (256, 8192, 64)
        pages = max(2 * pages_for(8192), 256 * pages_for(SHORT_PROMPT + NEW_TOKENS)) + 512
        with closing(Programs(checkpoint(LONG), pages, "branches")) as daemon:
            measure = _Measure(daemon, 1 if quick else 3)
            curves = {
                **measure.curves(PROGRAMS, powers(1, programs), measure.programs_us),
                **measure.curves(CONTEXTS, powers(128, context), measure.contexts_us),
                **measure.curves(BRANCHES, powers(1, branches), measure.branches_us),
            }
        return _answer(curves)


class _Measure:
    def __init__(self, daemon: Programs, rounds: int) -> None:
        self._daemon = daemon
        self._rounds = rounds
        self._seed = 0

    def curves(
        self, what: str, points: list[int], measure: Callable[[int], dict[str, float]]
    ) -> dict[Key, Curve]:
        """Up and down in turn, so that what drifts tilts no curve."""
        curves: dict[Key, Curve] = {(what, how): {} for how in measure(points[0])}
        for turn in range(self._rounds):
            for point in points[:: -1 if turn % 2 else 1]:
                for how, us in measure(point).items():
                    curves[what, how].setdefault(point, []).append(us)
                    say(f"  scaling, {point} {what}, {how}: {us:.0f} us/token")
        return {key: dict(sorted(curve.items())) for key, curve in curves.items()}

    def programs_us(self, num_programs: int) -> dict[str, float]:
        self._seed += 1
        load = Load(prompts(num_programs, SHORT_PROMPT, self._seed), NEW_TOKENS)
        return {"launch to end": 1e6 / self._daemon.run(load).tokens_per_s(load)}

    def contexts_us(self, length: int) -> dict[str, float]:
        said = self._branches(length, 1)
        return {"decode": _decode_us(said), "prefill": 1e6 * said["prefill_s"] / length}

    def branches_us(self, branches: int) -> dict[str, float]:
        return {f"of {BRANCH_PROMPT} tokens": _decode_us(self._branches(BRANCH_PROMPT, branches))}

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


def powers(first: int, last: int) -> list[int]:
    return [first << step for step in range(int(math.log2(last // first)) + 1)]


def _answer(curves: dict[Key, Curve]) -> Answer:
    medians = {
        key: {point: median(samples) for point, samples in curve.items()}
        for key, curve in curves.items()
    }
    return Answer(
        title="Microseconds per token as there is more of everything, 88M, bfloat16 (medians)",
        columns=["", "from", "to", "us per token at each doubling", "steepest", "it may"],
        rows=[_row(*key, curve) for key, curve in medians.items()],
        measured={f"{what}, {how}": curve for (what, how), curve in curves.items()},
        notes=[
            "Programs and branches may not make a token dearer; twice the context may make it cost "
            f"twice as much, since its keys and values are read; {NOISE - 1:.0%} more is noise.",
            "All of a prompt's tokens grow faster than their number: each attends to those before. "
            "It is the one thing here that is superlinear as a whole.",
        ],
        targets=[target(*key, curve) for key, curve in medians.items()],
        draw=partial(_draw, medians),
    )


def _row(what: str, how: str, curve: dict[int, float]) -> list[str]:
    first, *_, last = curve
    doublings = " ".join(number(us) for us in curve.values())
    steepest = ratio(max(growth(curve)))
    return [f"{what}, {how}", f"{first:,}", f"{last:,}", doublings, steepest, ratio(ALLOWED[what])]


def growth(curve: dict[int, float]) -> list[float]:
    """Of each point to the one before, half as much."""
    return [after / before for before, after in pairwise(curve.values())]


def target(what: str, how: str, curve: dict[int, float]) -> Target:
    steepest = f"twice the {what}, {how}, at the steepest"
    return Target(steepest, max(growth(curve)), ALLOWED[what], direction="at most")


def _draw(medians: dict[Key, dict[int, float]], figure: Figure) -> None:
    figure.set_size_inches(12, 4)
    axes = figure.subplots(1, len(ALLOWED), sharey=True)
    for axis, what in zip(axes, ALLOWED, strict=True):
        series = {how: curve for (of, how), curve in medians.items() if of == what}
        pictures.curves(axis, series, what, "us per token" if axis is axes[0] else "")
