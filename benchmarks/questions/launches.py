"""How long a launch takes until the program's `run` is entered: alone, and 896 at once."""

from __future__ import annotations

import asyncio
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import pictures
from benchmarks.question import Answer
from benchmarks.rounds import say
from benchmarks.targets import Bound, Target
from benchmarks.waiting import JAVASCRIPT, LABELS, PYTHON, Entered, Waiting, waiting_daemon

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# (program, how many at once, what is expected of that)
ALONE_PYTHON = (PYTHON, 1, "p50 <= 10 ms")
ALONE_JAVASCRIPT = (JAVASCRIPT, 1, "")
MANY_PYTHON = (PYTHON, 128, "")
MANY_JAVASCRIPT = (JAVASCRIPT, 896, "p99 <= 1,000 ms")
ALONE_MS: Bound = (10.0, "ms", "at most")
MANY_MS: Bound = (1000.0, "ms", "at most")
NUM_ALONE = 60

Case = tuple[str, int, str]
Samples = dict[Case, list[Entered]]


class Launches:
    name = "launches"

    def answer(self, *, quick: bool) -> Answer:
        cases = [ALONE_PYTHON, ALONE_JAVASCRIPT, MANY_PYTHON, MANY_JAVASCRIPT]
        daemon = waiting_daemon()
        try:
            samples = asyncio.run(_measure(daemon.endpoint, cases, 1 if quick else 3))
        finally:
            daemon.stop()
            daemon.remove()
        return _answer(samples)


async def _measure(endpoint: str, cases: list[Case], rounds: int) -> Samples:
    samples: Samples = {case: [] for case in cases}
    async with Waiting(endpoint) as waiting:
        for program in LABELS:
            await waiting.launch(program, 8)
        await waiting.end_all()
        for case in cases * rounds:
            program, at_once, _ = case
            for _ in range(NUM_ALONE if at_once == 1 else 1):
                samples[case] += await waiting.launch(program, at_once)
                await waiting.end_all()
            last = max(one.entered_ms for one in samples[case][-at_once:])
            say(f"  launches, {at_once} of {program}: all entered after {last:.0f} ms")
    return samples


def _answer(samples: Samples) -> Answer:
    return Answer(
        title="Milliseconds from asking for a launch until `run` was entered, through the listener",
        columns=["program", "at once", "p50", "p99", "p50, seen", "p99, seen", "expected"],
        rows=[_row(case, entered) for case, entered in samples.items()],
        measured={f"{case[0]} {case[1]}": entered for case, entered in samples.items()},
        notes=[
            "Entered by the program's own clock; seen when the client has the program's word.",
            "The clients share the cores with the daemon.",
        ],
        targets=[
            Target(
                "a warm Python program, p50", median(_entered(samples, ALONE_PYTHON)), *ALONE_MS
            ),
            Target("896 in JavaScript, p99", _p99(_entered(samples, MANY_JAVASCRIPT)), *MANY_MS),
        ],
        draw=partial(_draw, samples),
    )


def _row(case: Case, entered: list[Entered]) -> list[str]:
    program, at_once, expected = case
    by_itself, seen = ([one[side] for one in entered] for side in range(2))
    times = [median(by_itself), _p99(by_itself), median(seen), _p99(seen)]
    return [LABELS[program], str(at_once), *(f"{ms:,.1f}" for ms in times), expected]


def _entered(samples: Samples, case: Case) -> list[float]:
    return [one.entered_ms for one in samples[case]]


def _p99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]


def _draw(samples: Samples, figure: Figure) -> None:
    """How many of them had been entered after so long."""
    axis = figure.subplots()
    for number, ((program, at_once, _), entered) in enumerate(samples.items()):
        times = sorted(max(one.entered_ms, 0.5) for one in entered)
        shares = [(index + 1) / len(times) for index in range(len(times))]
        label = f"{LABELS[program]}, {at_once} at once"
        axis.plot(times, shares, color=pictures.PALETTE[number], label=label)
    axis.set_xscale("log")
    axis.set_xlabel("milliseconds until `run` was entered", fontsize=9)
    axis.set_ylabel("share of the programs", fontsize=9)
    axis.grid(visible=True, which="both", alpha=0.25, linewidth=0.5)
    axis.legend(fontsize=8, frameon=False)
