"""How close decoding one row comes to reading the weights as fast as memory allows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from statistics import median

from benchmarks import pictures
from benchmarks.contenders.bare_loop import BareLoop, pages_for
from benchmarks.load import Load
from benchmarks.memory import read_s
from benchmarks.model import LARGE, SMALL, Shape, checkpoint, prompts
from benchmarks.peers import worker
from benchmarks.question import Answer
from benchmarks.questions.decode import VLLM, Run
from benchmarks.rounds import take_turns
from benchmarks.targets import ratio

MODELS = {"88M": SMALL, "0.6B": LARGE}
PROMPT_TOKENS = 16
NEW_TOKENS = 64
LIMIT = "memory, only read"
PIE = "Pie, the engine's bare loop"


class Roofline:
    name = "roofline"

    def answer(self, *, quick: bool) -> Answer:
        models = {"88M": SMALL} if quick else MODELS
        samples = {label: _samples(shape, label, quick) for label, shape in models.items()}
        panels = {
            f"{label}, {models[label].read_bytes / 1e6:,.0f} MB a token": {
                name: models[label].read_bytes / median(times) / 1e9
                for name, times in by_name.items()
            }
            for label, by_name in samples.items()
        }
        return Answer(
            title="GB of weights read a second while one row decodes, bfloat16 "
            "(medians; ratio to the memory's own speed)",
            columns=["", *panels],
            rows=pictures.cells(panels, LIMIT),
            measured={"seconds_per_token": samples},
            notes=[
                "The memory takes its turn too: the fastest of eight readings of a buffer as large "
                "as the weights, with a thread for each core. Caches count on both sides.",
                *([] if quick else worker.dtype_notes()),
            ],
            targets=[
                ratio(label, values, (PIE, LIMIT), 0.6, "GB/s") for label, values in panels.items()
            ],
            draw=lambda figure: pictures.bars(figure, panels, "GB/s", LIMIT),
        )


def _samples(shape: Shape, label: str, quick: bool) -> dict[str, list[float]]:
    model = checkpoint(shape)
    with ExitStack() as stack:
        loop = BareLoop(model, 2 * pages_for(PROMPT_TOKENS + NEW_TOKENS))
        runs: dict[str, Run] = {PIE: stack.enter_context(closing(loop)).run}
        if not quick:
            vllm = worker.vllm(model, PROMPT_TOKENS + NEW_TOKENS, 1)
            runs[VLLM] = stack.enter_context(closing(vllm)).run
        turns: dict[str, Callable[[int], float]] = {LIMIT: lambda number: read_s(shape.read_bytes)}
        turns |= {name: partial(_s_per_token, run, shape) for name, run in runs.items()}
        return take_turns(turns, 2 if quick else 5, f"roofline, {label}")


def _s_per_token(run: Run, shape: Shape, number: int) -> float:
    """Of those after the first, so that prefill is not in it."""
    timing = run(Load(prompts(1, PROMPT_TOKENS, 5000 + number, shape), NEW_TOKENS))
    return (timing.last_s[0] - timing.first_s[0]) / (NEW_TOKENS - 1)
