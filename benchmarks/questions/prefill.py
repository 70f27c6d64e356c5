"""Prefill: how long a long prompt takes until its first token is there."""

from __future__ import annotations

from contextlib import ExitStack, closing
from functools import partial
from statistics import median

from benchmarks import pictures
from benchmarks.contenders.bare_loop import BareLoop, pages_for
from benchmarks.contenders.programs import Programs
from benchmarks.load import Contender, Load
from benchmarks.model import LARGE, SMALL, Shape, checkpoint, prompts
from benchmarks.peers import worker
from benchmarks.question import Answer
from benchmarks.questions.decode import VLLM, Run
from benchmarks.rounds import take_turns
from benchmarks.targets import ratio

MODELS = {"88M": SMALL, "0.6B": LARGE}
PROMPT_TOKENS = 2048
MAX_TOKENS = PROMPT_TOKENS + 64
PIE = "Pie, a program"


class Prefill:
    name = "prefill"

    def answer(self, *, quick: bool) -> Answer:
        models = {"88M": SMALL} if quick else MODELS
        samples = {label: _samples(shape, label, quick) for label, shape in models.items()}
        medians = {
            f"{label}, {PROMPT_TOKENS:,} tokens": {
                name: PROMPT_TOKENS / median(seconds) for name, seconds in by_name.items()
            }
            for label, by_name in samples.items()
        }
        reference = None if quick else VLLM
        return Answer(
            title=f"Prefill of {PROMPT_TOKENS:,} tokens until the first new one, tokens/s, bfloat16"
            + ("" if quick else f" (medians; ratio to {VLLM})"),
            columns=["", *medians],
            rows=pictures.cells(medians, reference),
            measured={"seconds": samples},
            notes=worker.dtype_notes() if reference else [],
            targets=[
                ratio(label, values, (PIE, VLLM), 1.0, "tokens/s")
                for label, values in medians.items()
            ],
            draw=lambda figure: pictures.bars(figure, medians, "tokens/s", reference),
        )


def _samples(shape: Shape, label: str, quick: bool) -> dict[str, list[float]]:
    with ExitStack() as stack:
        turns = {
            name: partial(_seconds, run, shape) for name, run in _start(stack, shape, quick).items()
        }
        return take_turns(turns, 1 if quick else 5, f"prefill, {label}")


def _start(stack: ExitStack, shape: Shape, quick: bool) -> dict[str, Run]:
    model = checkpoint(shape)
    # Rounds are new prompts, and what is cached of the old ones makes room for them.
    pages = 2 * pages_for(MAX_TOKENS)
    contenders: dict[str, Contender] = {
        "Pie, the engine's bare loop": BareLoop(model, pages),
        PIE: Programs(model, pages),
    }
    if not quick:
        peers: dict[str, Contender] = {
            VLLM: worker.vllm(model, MAX_TOKENS, 32),
            "transformers generate": worker.transformers(model, "generate"),
            "transformers generate_batch": worker.transformers(
                model, "generate_batch", num_blocks=pages, batch_tokens=MAX_TOKENS
            ),
        }
        contenders = peers | contenders
    return {name: stack.enter_context(closing(one)).run for name, one in contenders.items()}


def _seconds(run: Run, shape: Shape, number: int) -> float:
    load = Load(prompts(1, PROMPT_TOKENS, 7000 + number, shape), 1)
    timing = run(load)
    assert timing.num_tokens == [1]
    return timing.seconds
