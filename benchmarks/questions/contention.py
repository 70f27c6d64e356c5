"""What a pool a quarter of the demand costs: conversations through the scheduler and the engine."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

from benchmarks import pictures
from benchmarks.contenders.bare_loop import PAGE_SIZE, pages_for
from benchmarks.model import checkpoint, prompts
from benchmarks.question import Answer
from benchmarks.rounds import take_turns
from benchmarks.targets import Target, ratio
from pie_backend.batch import BackendConfig
from pie_backend.create import create_backend
from pie_daemon.scheduler.delivery import Delivery
from support.contention import Launch, run, talk
from support.stepping import Stepper

NUM_TURNS = 2
TURN_TOKENS = 32
NEW_TOKENS = 16
TARGET = 0.7
WHOLE = "all that is wanted"
QUARTER = "Pie, a quarter"
WITH_HOST = "Pie, a quarter, as much in host memory"


class Cost(NamedTuple):
    """Of one run. The CPU's part tells the same story on a machine that does other things too."""

    wall_s: float
    cpu_s: float
    recomputed: float
    """The share of all computed tokens."""

    def __str__(self) -> str:
        return f"{self.wall_s:.3f} s"


class Contention:
    name = "contention"

    def answer(self, *, quick: bool) -> Answer:
        num_programs, rounds = (16, 1) if quick else (128, 2)
        demand = num_programs * pages_for(NUM_TURNS * (TURN_TOKENS + NEW_TOKENS))
        quarter = demand // 4
        sizes = {WHOLE: (demand, 0), QUARTER: (quarter, 0), WITH_HOST: (quarter, quarter)}
        with ExitStack() as stack:
            turns = {
                label: stack.enter_context(closing(Pool(checkpoint(), num_programs, size))).cost
                for label, size in sizes.items()
            }
            costs = take_turns(turns, rounds, self.name)
        return _answer(costs, num_programs, {label: size[0] for label, size in sizes.items()})


class Pool:
    """One size of pool: pages, and pages in host memory. Every run begins with an empty one."""

    def __init__(self, directory: Path, num_programs: int, size: tuple[int, int]) -> None:
        self._num_programs = num_programs
        self._backend = create_backend(
            BackendConfig(
                name="bench",
                placement="inline",
                path=str(directory),
                page_size=PAGE_SIZE,
                kv_pages=size[0],
                host_pages=size[1],
            )
        )

    def cost(self, number: int) -> Cost:
        stepper = _Loop(backend=self._backend)
        conversations = self._conversations(number)
        wall, cpu = time.perf_counter(), time.process_time()
        made = run(stepper, conversations)
        wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
        assert all(len(tokens) == NUM_TURNS * NEW_TOKENS for tokens in made)
        counters = stepper.state.counters
        return Cost(wall_s, cpu_s, counters.recomputed_tokens / counters.computed_tokens)

    def _conversations(self, seed: int) -> list[Launch]:
        turns = prompts(self._num_programs * NUM_TURNS, TURN_TOKENS, seed)
        return [talk(turns[n :: self._num_programs], NEW_TOKENS) for n in range(self._num_programs)]

    def close(self) -> None:
        self._backend.close()


class _Loop(Stepper):
    def land(self) -> Delivery:
        # Without the proof of the page accounting, which takes longer than the batch.
        return self.state.complete(self.backend.execute(self.batches.pop()))


def _answer(costs: dict[str, list[Cost]], num_programs: int, pages: dict[str, int]) -> Answer:
    num_tokens = num_programs * NUM_TURNS * NEW_TOKENS
    best = {label: Cost(*map(min, zip(*runs, strict=True))) for label, runs in costs.items()}
    panels = {
        "tokens/s": {label: num_tokens / cost.wall_s for label, cost in best.items()},
        "tokens per CPU second": {label: num_tokens / cost.cpu_s for label, cost in best.items()},
    }
    rows = [
        [*cells, f"{pages[label]:,}", f"{best[label].recomputed:.0%}"]
        for label, cells in zip(best, pictures.cells(panels, WHOLE), strict=True)
    ]
    return Answer(
        title=f"{num_programs} conversations of {NUM_TURNS} turns, {TURN_TOKENS} tokens in and "
        f"{NEW_TOKENS} out each, 88M, bfloat16, by the size of the pool (the best run of each)",
        columns=["pages", *panels, "so many", "computed again"],
        rows=rows,
        measured={label: [cost._asdict() for cost in runs] for label, runs in costs.items()},
        notes=[
            "All conversations complete, which is asserted; none is ended to make room.",
            "A quarter of the pages runs a quarter of the rows at a time, which alone costs.",
        ],
        targets=_targets(panels["tokens/s"]),
        draw=lambda figure: pictures.bars(figure, panels, "tokens", WHOLE),
    )


def _targets(tokens_per_s: dict[str, float]) -> list[Target]:
    return [
        ratio(label.removeprefix("Pie, "), tokens_per_s, (label, WHOLE), TARGET, "tokens/s")
        for label in (QUARTER, WITH_HOST)
    ]
