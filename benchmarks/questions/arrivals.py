"""Latency under arrivals: requests that come one by one, at random, while others are served."""

from __future__ import annotations

import random
from contextlib import ExitStack, closing
from functools import partial
from statistics import quantiles

from benchmarks import pictures
from benchmarks.contenders.bare_loop import pages_for
from benchmarks.contenders.programs import Programs
from benchmarks.load import Load, Timing
from benchmarks.model import SMALL, checkpoint, prompts
from benchmarks.peers import worker
from benchmarks.question import Answer
from benchmarks.questions.decode import VLLM, Run
from benchmarks.rounds import take_turns
from benchmarks.targets import ratio

NUM_REQUESTS = 32
PROMPT_TOKENS = 128
NEW_TOKENS = 64
MEAN_GAP_S = 0.15
PIE = "Pie, programs streamed by the token"


class Arrivals:
    name = "arrivals"

    def answer(self, *, quick: bool) -> Answer:
        model = checkpoint(SMALL)
        arrivals_s = schedule(8 if quick else NUM_REQUESTS)
        pages = 2 * NUM_REQUESTS * pages_for(PROMPT_TOKENS + NEW_TOKENS)
        with ExitStack() as stack:
            runs: dict[str, Run] = {}
            if not quick:
                vllm = worker.vllm(model, PROMPT_TOKENS + NEW_TOKENS, NUM_REQUESTS)
                runs[VLLM] = stack.enter_context(closing(vllm)).run
            runs[PIE] = stack.enter_context(closing(Programs(model, pages))).run_streamed
            turns = {name: partial(_timing, run, arrivals_s) for name, run in runs.items()}
            samples = take_turns(turns, 1 if quick else 3, self.name)
        return _answer(samples, arrivals_s)


def schedule(num_requests: int) -> list[float]:
    """Exponential gaps, the same for everybody and in every round."""
    source = random.Random(0)
    times = [0.0]
    while len(times) < num_requests:
        times.append(times[-1] + source.expovariate(1 / MEAN_GAP_S))
    return times


def _timing(run: Run, arrivals_s: list[float], number: int) -> Timing:
    asked = prompts(len(arrivals_s), PROMPT_TOKENS, 9000 + number)
    load = Load(asked, NEW_TOKENS, arrivals_s)
    timing = run(load)
    timing.tokens_per_s(load)
    return timing


def _answer(samples: dict[str, list[Timing]], arrivals_s: list[float]) -> Answer:
    waits = {name: waits_ms(timings, arrivals_s) for name, timings in samples.items()}
    paces = {name: _paces_ms(timings) for name, timings in samples.items()}
    panels = {
        "first token, p50": {name: quantile(values, 50) for name, values in waits.items()},
        "first token, p99": {name: quantile(values, 99) for name, values in waits.items()},
        "each further token, p50": {name: quantile(values, 50) for name, values in paces.items()},
        "each further token, p99": {name: quantile(values, 99) for name, values in paces.items()},
    }
    reference = VLLM if VLLM in samples else None
    return Answer(
        title=f"Milliseconds under {len(arrivals_s)} arrivals within {arrivals_s[-1]:.1f} s, "
        f"{PROMPT_TOKENS} in, {NEW_TOKENS} out, 88M, bfloat16"
        + (f" (less is better; ratio to {VLLM})" if reference else ""),
        columns=["", *panels],
        rows=pictures.cells(panels, reference),
        measured={
            "arrivals_s": arrivals_s,
            "first_token_ms": waits,
            "further_token_ms": paces,
        },
        notes=[
            "Pie is timed at its client: launching a program for each request, the socket and the "
            "tokenizer are in it. vLLM is timed inside its own engine loop, with nothing around "
            "it.",
            *(worker.dtype_notes() if reference else []),
        ],
        targets=[
            ratio(what, values, (PIE, VLLM), 1.0, "ms")
            for what, values in panels.items()
            if what.startswith("first token")
        ],
        draw=lambda figure: pictures.bars(figure, panels, "ms", reference),
    )


def waits_ms(timings: list[Timing], arrivals_s: list[float]) -> list[float]:
    """From the arrival to the first token, of all requests of all rounds."""
    return [
        1e3 * (first_s - at_s)
        for timing in timings
        for first_s, at_s in zip(timing.first_s, arrivals_s, strict=True)
    ]


def _paces_ms(timings: list[Timing]) -> list[float]:
    return [
        1e3 * (last_s - first_s) / (NEW_TOKENS - 1)
        for timing in timings
        for first_s, last_s in zip(timing.first_s, timing.last_s, strict=True)
    ]


def quantile(values: list[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1]
