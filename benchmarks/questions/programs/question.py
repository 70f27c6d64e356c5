"""Programs in Pie against clients of vLLM: one agent alone, and many at once; near, and far."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from statistics import median

from benchmarks.peers.worker import dtype_notes
from benchmarks.question import Answer
from benchmarks.questions.programs import agents, decoding, pictures, thoughts
from benchmarks.questions.programs.stages import (
    DELAYS_MS,
    PIE,
    VLLM,
    Contender,
    Contest,
    Samples,
    Stage,
)
from benchmarks.questions.programs.tools import LATENCY_S, tool_server
from benchmarks.targets import Target
from benchmarks.text_model import copying_checkpoint, text_checkpoint

NUM_AGENTS = 8
AT_LEAST, BEST = 1.3, 3.4
STAGES = [
    Stage(
        text_checkpoint,
        [
            agents.React(),
            agents.CodeAct(),
            agents.Swarm(),
            thoughts.Tree(),
            thoughts.Graph(),
            thoughts.Skeleton(),
            decoding.PrefixTree(),
            decoding.JsonSchema(),
        ],
    ),
    Stage(copying_checkpoint, [decoding.Ngram()], {"speculative_config": decoding.SPECULATION}),
]

Measured = dict[str, dict[int, Samples]]
"""By workload and by how many agents were there at once."""
Ratios = dict[str, dict[tuple[int, int], float]]
"""By workload; then by agents and milliseconds of the round trip. Above 1 Pie is ahead."""


class Programs:
    name = "programs"

    def answer(self, *, quick: bool) -> Answer:
        measured: Measured = {}
        with tool_server() as tool:
            for stage in STAGES:
                measured |= _measured(stage, tool, quick)
        return _answer(measured)


def _measured(stage: Stage, tool: str, quick: bool) -> Measured:
    # Eight agents are eight samples.
    rounds = {1: 1} if quick else {1: 2, NUM_AGENTS: 1}
    with Contest(stage, tool, with_vllm=not quick) as contest:
        return {
            workload.label: {
                width: contest.measure(workload, width, number) for width, number in rounds.items()
            }
            for workload in stage.workloads
        }


def _answer(measured: Measured) -> Answer:
    ratios = {label: dict(_ratios(by_width)) for label, by_width in measured.items()}
    widths = list(next(iter(measured.values())))
    columns = [(width, delay_ms) for width in widths for delay_ms in DELAYS_MS]
    return Answer(
        title="Programs in Pie against clients of vLLM's server, seconds, 88M, bfloat16; "
        "the round trip between client and server takes 0 or 20 ms more (medians)",
        columns=["", *(_column(*column) for column in columns)],
        rows=[
            [label, *(_cell(by_width[width], delay_ms) for width, delay_ms in columns)]
            for label, by_width in measured.items()
        ],
        measured={
            label: {
                str(width): {name: [run._asdict() for run in runs] for name, runs in one.items()}
                for width, one in by_width.items()
            }
            for label, by_width in measured.items()
        },
        notes=[*_notes(), *dtype_notes(), *_counts(measured)],
        targets=_targets(ratios),
        draw=partial(pictures.draw, ratios) if any(ratios.values()) else None,
    )


def _ratios(by_width: dict[int, Samples]) -> Iterator[tuple[tuple[int, int], float]]:
    for width, samples in by_width.items():
        for delay_ms in DELAYS_MS:
            other = seconds(samples, VLLM, delay_ms)
            if other is not None:
                yield (width, delay_ms), other / (seconds(samples, PIE, delay_ms) or 1)


def seconds(samples: Samples, side: str, delay_ms: int) -> float | None:
    """None when that side was not asked."""
    runs = samples.get(str(Contender(side, delay_ms)))
    return median(run.seconds for run in runs) if runs else None


def _column(width: int, delay_ms: int) -> str:
    return f"{'one agent' if width == 1 else f'{width} at once'}, +{delay_ms} ms"


def _cell(samples: Samples, delay_ms: int) -> str:
    pie, other = seconds(samples, PIE, delay_ms), seconds(samples, VLLM, delay_ms)
    if other is None:
        return f"{pie:.2f}"
    return f"{pie:.2f} / {other:.2f} ({other / (pie or 1):.2f}x)"


def _notes() -> list[str]:
    return [
        "A cell: Pie's seconds / vLLM's (how many times faster Pie is). At once: from the first "
        "request to the last agent's answer.",
        "Same weights, prompts of the same lengths, greedy, same numbers of tokens drawn.",
        "The client is asyncio and httpx with connections that stay open, sends token ids, and "
        "asks for everything at once that does not depend on each other. vLLM's prefix cache is "
        "on, in blocks of 32 tokens.",
        f"Tools answer over HTTP after {1000 * LATENCY_S:.0f} ms on both sides, as near to the "
        "program as to the client.",
    ]


def _counts(measured: Measured) -> Iterator[str]:
    """Where a grammar decides how many tokens are drawn, the sides differ."""
    for label, by_width in measured.items():
        pie, other = (_drawn(by_width[1], side) for side in (PIE, VLLM))
        if other and pie != other:
            yield f"{label}: Pie drew {pie} tokens, vLLM {other}, one agent, all rounds."


def _drawn(samples: Samples, side: str) -> int:
    names = {str(Contender(side, delay_ms)) for delay_ms in DELAYS_MS}
    return sum(run.num_tokens for name in names for run in samples.get(name, []))


def _targets(ratios: Ratios) -> list[Target]:
    """Each is held to the least favourable of its four cases."""
    worst = {label: min(cases.values(), default=None) for label, cases in ratios.items()}
    found = [value for cases in ratios.values() for value in cases.values()]
    return [
        *(Target(f"{label}, worst case", value, AT_LEAST) for label, value in worst.items()),
        Target("the best of all", max(found, default=None), BEST),
    ]
