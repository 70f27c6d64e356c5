"""What a pool a quarter of the demand costs: conversations through the scheduler and the engine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import pictures
from benchmarks.contenders.bare_loop import PAGE_SIZE, pages_for
from benchmarks.model import checkpoint, prompts
from benchmarks.question import Answer
from benchmarks.rounds import take_turns
from pie_backend.batch import BackendConfig
from pie_backend.create import create_backend
from pie_daemon.scheduler.delivery import Delivery
from support.contention import Launch, run, talk
from support.stepping import Stepper

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_TURNS = 2
TURN_TOKENS = 32
NEW_TOKENS = 16


class Cost(NamedTuple):
    """Of one run. The CPU's part tells the same story on a machine that does other things too."""

    wall_s: float
    cpu_s: float


class Pool:
    """One size of pool; every run begins with an empty one."""

    def __init__(self, directory: Path, num_programs: int, pages: tuple[int, int]) -> None:
        self.kv_pages, host_pages = pages
        config = BackendConfig(
            name="bench",
            placement="inline",
            path=str(directory),
            page_size=PAGE_SIZE,
            kv_pages=self.kv_pages,
            host_pages=host_pages,
        )
        self._num_programs = num_programs
        self._backend = create_backend(config)
        self.stepper = _Loop(backend=self._backend)

    def cost(self, number: int) -> Cost:
        self.stepper = _Loop(backend=self._backend)
        launches = self._conversations(number)
        wall, cpu = time.perf_counter(), time.process_time()
        made = run(self.stepper, launches)
        cost = Cost(time.perf_counter() - wall, time.process_time() - cpu)
        assert all(len(tokens) == NUM_TURNS * NEW_TOKENS for tokens in made)
        return cost

    def _conversations(self, seed: int) -> list[Launch]:
        turns = prompts(self._num_programs * NUM_TURNS, TURN_TOKENS, seed)
        return [talk(turns[n :: self._num_programs], NEW_TOKENS) for n in range(self._num_programs)]

    @property
    def recomputed(self) -> float:
        """The share of all computed tokens, in the last run."""
        counters = self.stepper.state.counters
        return counters.recomputed_tokens / counters.computed_tokens

    def close(self) -> None:
        self._backend.close()


class _Loop(Stepper):
    def land(self) -> Delivery:
        # Without the proof of the page accounting, which takes longer than the batch.
        return self.state.complete(self.backend.execute(self.batches.pop()))


class Contention:
    name = "contention"

    def answer(self, *, quick: bool) -> Answer:
        num_programs, rounds = (32, 1) if quick else (128, 2)
        demand = num_programs * pages_for(NUM_TURNS * (TURN_TOKENS + NEW_TOKENS))
        quarter = demand // 4
        pools = {
            label: Pool(checkpoint(), num_programs, pages)
            for label, pages in {
                "all that is wanted": (demand, 0),
                "a quarter": (quarter, 0),
                "a quarter, as much in host memory": (quarter, quarter),
            }.items()
        }
        costs = take_turns({label: pool.cost for label, pool in pools.items()}, rounds, self.name)
        try:
            return _answer(pools, costs, num_programs)
        finally:
            for pool in pools.values():
                pool.close()


def _answer(pools: dict[str, Pool], costs: dict[str, list[Cost]], num_programs: int) -> Answer:
    best = {label: Cost(*map(min, zip(*runs, strict=True))) for label, runs in costs.items()}
    whole = next(iter(best.values()))
    num_tokens = num_programs * NUM_TURNS * NEW_TOKENS
    rows = [
        [
            f"{label} ({pool.kv_pages})",
            f"{num_tokens / best[label].wall_s:.0f}",
            pictures.ratio(whole.wall_s, best[label].wall_s),
            pictures.ratio(whole.cpu_s, best[label].cpu_s),
            f"{pool.recomputed:.0%}",
        ]
        for label, pool in pools.items()
    ]

    def draw(figure: Figure) -> None:
        shown = {f"Pie, {label}": num_tokens / cost.wall_s for label, cost in best.items()}
        panel = {f"{num_programs} conversations": shown}
        pictures.bars(figure, panel, "tokens/s", "Pie, all that is wanted")

    return Answer(
        title=f"{num_programs} conversations of {NUM_TURNS} turns, {TURN_TOKENS} tokens in and "
        f"{NEW_TOKENS} out each, by the size of the pool",
        columns=["pages", "tokens/s", "throughput", "per CPU second", "computed again"],
        rows=rows,
        measured={label: [cost._asdict() for cost in runs] for label, runs in costs.items()},
        notes=["A quarter of the pages runs a quarter of the rows at a time, which alone costs."],
        draw=draw,
    )
