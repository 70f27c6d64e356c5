"""Decode throughput: the engine's bare loop, programs, and the peers, at 1, 8 and 32 rows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import pictures
from benchmarks.contenders.bare_loop import BareLoop, pages_for
from benchmarks.contenders.programs import Programs
from benchmarks.load import Load, Timing
from benchmarks.model import LARGE, SMALL, Shape, checkpoint, prompts
from benchmarks.numbers import rows
from benchmarks.peers import worker
from benchmarks.question import Answer
from benchmarks.rounds import take_turns
from benchmarks.targets import ratio

PROMPT_TOKENS = 128
MAX_TOKENS = 256
VLLM = "vLLM"
PROGRAMS = "Pie, programs"

Run = Callable[[Load], Timing]


class Decode:
    name = "decode"
    shape: Shape = SMALL
    parameters = "88M"
    ahead = 1.5
    """By how much programs are to be faster than vLLM."""
    size: tuple[tuple[int, ...], int] = (1, 8, 32), 128
    """Rows at once, and new tokens of each."""
    quick_size: tuple[tuple[int, ...], int] = (1, 8), 32

    def answer(self, *, quick: bool) -> Answer:
        widths, new_tokens = self.quick_size if quick else self.size
        rounds = 1 if quick else 3
        samples: dict[int, dict[str, list[float]]] = {}
        with ExitStack() as stack:
            contenders = self._start(stack, max(widths), quick)
            for width in widths:
                turns = {
                    name: partial(self._tokens_per_s, run, (width, place), new_tokens)
                    for place, (name, run) in enumerate(contenders.items())
                }
                samples[width] = take_turns(turns, rounds, f"{self.name}, {width} rows")
        return self._answer(samples, new_tokens)

    def _start(self, stack: ExitStack, width: int, quick: bool) -> dict[str, Run]:
        model = checkpoint(self.shape)
        pages = width * pages_for(MAX_TOKENS) + 64
        programs = stack.enter_context(closing(Programs(model, pages)))
        contenders: dict[str, Run] = {
            "Pie, the engine's bare loop": stack.enter_context(closing(BareLoop(model, pages))).run,
            PROGRAMS: programs.run,
            "Pie, programs streamed by the token": programs.run_streamed,
        }
        if quick:
            return contenders
        peers = self._peers(model, width, pages)
        return {name: stack.enter_context(closing(peer)).run for name, peer in peers.items()} | (
            contenders
        )

    def _peers(self, model: Path, width: int, pages: int) -> dict[str, worker.Worker]:
        return {
            VLLM: worker.vllm(model, MAX_TOKENS, width),
            "transformers generate": worker.transformers(model, "generate"),
            "transformers generate_batch": worker.transformers(
                model, "generate_batch", num_blocks=pages, batch_tokens=512
            ),
        }

    def _tokens_per_s(
        self, run: Run, which: tuple[int, int], new_tokens: int, number: int
    ) -> float:
        """`which`: the number of rows, and the contender's place among all."""
        width, place = which
        # New prompts every time, also for contenders of one daemon: no cache has seen them.
        seed = 10 * (1000 * width + number) + place
        wanted = new_tokens if number >= 0 else 8
        load = Load(prompts(width, PROMPT_TOKENS, seed, self.shape), wanted)
        return run(load).tokens_per_s(load)

    def _answer(self, samples: dict[int, dict[str, list[float]]], new_tokens: int) -> Answer:
        medians = {
            rows(width): {name: median(values) for name, values in by_name.items()}
            for width, by_name in samples.items()
        }
        reference = VLLM if VLLM in next(iter(medians.values())) else None
        return Answer(
            title=f"Greedy tokens/s, {self.parameters} Qwen3 shape, bfloat16, {PROMPT_TOKENS} in, "
            f"{new_tokens} out, prefill included (medians"
            + (f"; ratio to {reference})" if reference else ")"),
            columns=["", *medians],
            rows=pictures.cells(medians, reference),
            measured={"tokens_per_s": samples},
            notes=worker.dtype_notes() if reference else [],
            targets=[
                ratio(label, values, (PROGRAMS, VLLM), self.ahead, "tokens/s")
                for label, values in medians.items()
            ],
            draw=lambda figure: pictures.bars(figure, medians, "tokens/s", reference),
        )


class DecodeLarge(Decode):
    name = "decode_06b"
    shape = LARGE
    parameters = "0.6B"
    ahead = 1.3
    size = (1, 8, 32), 64
    quick_size = (1,), 8

    def _peers(self, model: Path, width: int, pages: int) -> dict[str, worker.Worker]:
        # The others are a fifth to a half as fast: a quarter of an hour that tells nothing new.
        return {VLLM: worker.vllm(model, MAX_TOKENS, width)}
