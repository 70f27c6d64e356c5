"""What dividing a model among ranks costs where one process could have every core."""

from __future__ import annotations

from contextlib import ExitStack, closing
from functools import partial
from statistics import median

from benchmarks import pictures
from benchmarks.contenders.bare_loop import BareLoop, pages_for
from benchmarks.load import Load
from benchmarks.model import SMALL, checkpoint, prompts
from benchmarks.numbers import rows
from benchmarks.question import Answer
from benchmarks.rounds import take_turns

WIDTHS = (1, 8, 32)
PROMPT_TOKENS = 64
ONE, TWO = "one process, 2 threads", "2 ranks, 1 thread each"


class Ranks:
    name = "ranks"

    def answer(self, *, quick: bool) -> Answer:
        new_tokens, rounds = (16, 1) if quick else (64, 5)
        model = checkpoint(SMALL)
        kv_pages = max(WIDTHS) * pages_for(PROMPT_TOKENS + new_tokens)
        with ExitStack() as stack:
            loops = {
                name: stack.enter_context(
                    closing(BareLoop(model, kv_pages, "process", tensor_parallel=degree))
                )
                for name, degree in ((ONE, 1), (TWO, 2))
            }
            steps = {rows(width): _samples(loops, width, new_tokens, rounds) for width in WIDTHS}
        return _answer(steps)


def _samples(
    loops: dict[str, BareLoop], width: int, new_tokens: int, rounds: int
) -> dict[str, list[float]]:
    turns = {name: partial(_step_s, loop, width, new_tokens) for name, loop in loops.items()}
    return take_turns(turns, rounds, f"ranks, {rows(width)}")


def _step_s(loop: BareLoop, width: int, new_tokens: int, number: int) -> float:
    """Of the steps after the first, so that prefill is not in it."""
    timing = loop.run(Load(prompts(width, PROMPT_TOKENS, 7000 + number), new_tokens))
    return (timing.last_s[0] - timing.first_s[0]) / (new_tokens - 1)


def _answer(steps: dict[str, dict[str, list[float]]]) -> Answer:
    panels = {
        label: {name: 1 / median(times) for name, times in by_name.items()}
        for label, by_name in steps.items()
    }
    return Answer(
        title="Decode steps a second of the 88M model, bfloat16, by rows of a batch (medians; "
        "ratio to one process)",
        columns=["", *panels],
        rows=pictures.cells(panels, ONE),
        measured={"seconds_per_step": steps},
        notes=[
            "Both read the same weights with the same cores. Ranks wait for each other twice a "
            "layer, through the kernel's loopback, which is what is measured here: they pay where "
            "each has a device of its own."
        ],
        draw=lambda figure: pictures.bars(figure, panels, "steps/s", ONE),
    )
