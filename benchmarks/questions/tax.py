"""The tax: what a token costs more when a program decodes than in the engine's bare loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import pictures
from benchmarks.contenders.bare_loop import BareLoop, pages_for
from benchmarks.contenders.decode_loops import DecodeLoops
from benchmarks.load import Load
from benchmarks.model import checkpoint, prompts
from benchmarks.numbers import quantity
from benchmarks.question import Answer
from benchmarks.rounds import take_turns
from benchmarks.targets import Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROMPT_TOKENS = 32
BARE = "the engine's bare loop"
WORKER = "the same in a worker process"
WAYS = {
    "generate": "`generate`, {}",
    "stream": "streamed to a client by the token, {}",
    "relay": "the same by `relay`, {}",
    "steps": "`next-token` loop, {}",
    "passes": "`forward-pass` loop, {}",
}
# way -> programs -> what a token may cost beyond the bare loop
MAY_COST = {
    "generate": {1: (1.0, "%"), 8: (1.0, "%"), 32: (1.0, "%")},
    "stream": {8: (5.0, "%"), 32: (10.0, "%")},
    "relay": {8: (5.0, "%"), 32: (10.0, "%")},
    "steps": {32: (300.0, "us")},
    "passes": {32: (300.0, "us")},
}


class Cost(NamedTuple):
    token_us: float
    rows: float
    """In a batch, on average; 0: nobody counted."""


class Tax:
    name = "tax"

    def answer(self, *, quick: bool) -> Answer:
        widths, new_tokens, rounds = ((8,), 16, 1) if quick else ((1, 8, 32), 128, 3)
        samples: dict[int, dict[str, list[Cost]]] = {}
        with ExitStack() as stack:
            pages = max(widths) * pages_for(PROMPT_TOKENS + new_tokens) + 64
            loops = stack.enter_context(closing(DecodeLoops(checkpoint(), pages)))
            contenders = _bare(stack, pages) | _programs(loops)
            for width in widths:
                turns = {
                    name: partial(_cost, decode, width, new_tokens)
                    for name, decode in contenders.items()
                }
                samples[width] = take_turns(turns, rounds, f"{self.name}, {width} programs")
            missing = loops.no_javascript
        return _answer(samples, new_tokens, missing)


def _bare(stack: ExitStack, pages: int) -> dict[str, Callable[[Load], Cost]]:
    placements = {BARE: "inline", WORKER: "process"}
    return {
        name: partial(
            _of_bare_loop, stack.enter_context(closing(BareLoop(checkpoint(), pages, placement)))
        )
        for name, placement in placements.items()
    }


def _of_bare_loop(loop: BareLoop, load: Load) -> Cost:
    """Without the first step, which computes the prompts."""
    timing = loop.run(load)
    num_tokens = len(load.prompts) * (load.new_tokens - 1)
    return Cost(1e6 * (timing.seconds - max(timing.first_s)) / num_tokens, len(load.prompts))


def _programs(loops: DecodeLoops) -> dict[str, Callable[[Load], Cost]]:
    return {
        label.format(language): partial(_of_programs, loops, program, way)
        for way, label in WAYS.items()
        for language, program in loops.languages.items()
    }


def _of_programs(loops: DecodeLoops, program: str, way: str, load: Load) -> Cost:
    steps, rows = loops.batches()
    token_s = loops.decode_s(program, way, load)
    steps_after, rows_after = loops.batches()
    return Cost(1e6 * token_s, (rows_after - rows) / (steps_after - steps))


def _cost(decode: Callable[[Load], Cost], width: int, new_tokens: int, number: int) -> Cost:
    # New prompts every time: what the cache holds of the last ones would change the first step.
    load = Load(prompts(width, PROMPT_TOKENS, 100 * width + number), new_tokens)
    return decode(load)


def _answer(samples: dict[int, dict[str, list[Cost]]], new_tokens: int, missing: str) -> Answer:
    token_us = {
        width: {name: median(cost.token_us for cost in costs) for name, costs in by_name.items()}
        for width, by_name in samples.items()
    }
    names = next(iter(token_us.values()))
    return Answer(
        title=f"Decoding alone, us per token of any program, 88M, bfloat16, {new_tokens} tokens "
        "each: what it costs beyond the bare loop (medians)",
        columns=["", *(f"{width} program{'s' * (width > 1)}" for width in token_us)],
        rows=[[name, *(_cell(by_name, name) for by_name in token_us.values())] for name in names],
        measured={
            str(width): {name: [cost._asdict() for cost in costs] for name, costs in one.items()}
            for width, one in samples.items()
        },
        notes=_notes(samples, missing),
        targets=[
            target
            for way, label in WAYS.items()
            for width, by_name in token_us.items()
            for target in _targets(label, width, by_name, MAY_COST[way].get(width))
        ],
        draw=partial(_draw, token_us),
    )


def _cell(token_us: dict[str, float], name: str) -> str:
    bare, cost = token_us[BARE], token_us[name]
    if name == BARE:
        return f"{cost:,.0f}"
    return f"{cost:,.0f} ({cost - bare:+,.0f}, {cost / bare - 1:+.1%})"


def _targets(
    label: str, width: int, token_us: dict[str, float], may_cost: tuple[float, str] | None
) -> list[Target]:
    """Of one way, for each language that there is."""
    bare = token_us[BARE]
    bound, unit = may_cost or (0.0, "")
    return [
        Target(
            f"{name}, {width} {'program' if width == 1 else 'programs'}",
            us - bare if unit == "us" else 100 * (us / bare - 1),
            bound,
            unit,
            "at most",
            pie=quantity(us, "us"),
            other=f"bare loop: {quantity(bare, 'us')}",
        )
        for name, us in token_us.items()
        if may_cost and name.startswith(label.format(""))
    ]


def _notes(samples: dict[int, dict[str, list[Cost]]], missing: str) -> list[str]:
    width, by_name = max(samples.items())
    rows = ", ".join(
        f"{name} {median(cost.rows for cost in costs):.1f}"
        for name, costs in by_name.items()
        if name not in (BARE, WORKER)
    )
    notes = [
        "Launch and prompt are left out: programs decode when all of them have computed theirs. "
        "Programs take the time themselves; of a stream, the client does.",
        "Client, daemon and engine share the machine's cores.",
        f"Rows in a batch at {width} programs, prompts included: {rows}.",
    ]
    return notes + [f"No programs in JavaScript: {missing}."] * bool(missing)


def _draw(token_us: dict[int, dict[str, float]], figure: Figure) -> None:
    panels = {
        f"{width} programs": {f"Pie, {name}": cost for name, cost in by_name.items()}
        for width, by_name in token_us.items()
    }
    pictures.bars(figure, panels, "us per token", f"Pie, {BARE}")
