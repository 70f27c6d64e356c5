"""What a pool a quarter of the demand costs: conversations through the scheduler and the engine."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from rich.console import Console
from rich.table import Table

from benchmarks.model import ensure_model, prompts
from benchmarks.throughput import MODEL_DIR, PAGE_SIZE
from pie_backend.batch import BackendConfig
from pie_backend.create import create_backend
from pie_daemon.scheduler.state import Delivery
from support.contention import Launch, run, talk
from support.stepping import Stepper

NUM_PROGRAMS = 128
NUM_TURNS = 2
TURN_TOKENS = 32
NEW_TOKENS = 16
DEMAND_PAGES = NUM_PROGRAMS * -(-NUM_TURNS * (TURN_TOKENS + NEW_TOKENS) // PAGE_SIZE)
ROUNDS = 2


class Cost(NamedTuple):
    """Of one run. The CPU's part tells the same story on a machine that does other things too."""

    wall_s: float
    cpu_s: float


class Pool:
    """One size of pool; every run begins with an empty one."""

    def __init__(self, directory: Path, kv_pages: int, host_pages: int) -> None:
        config = BackendConfig(
            name="bench",
            placement="inline",
            path=str(directory),
            page_size=PAGE_SIZE,
            kv_pages=kv_pages,
            host_pages=host_pages,
        )
        self._backend = create_backend(config)
        self.stepper = _Loop(backend=self._backend)

    def cost(self, seed: int) -> Cost:
        self.stepper = _Loop(backend=self._backend)
        launches = _conversations(seed)
        wall, cpu = time.perf_counter(), time.process_time()
        made = run(self.stepper, launches)
        cost = Cost(time.perf_counter() - wall, time.process_time() - cpu)
        assert all(len(tokens) == NUM_TURNS * NEW_TOKENS for tokens in made)
        return cost

    def close(self) -> None:
        self._backend.close()


class _Loop(Stepper):
    def land(self) -> Delivery:
        # Without the proof of the page accounting, which takes longer than the batch.
        return self.state.complete(self.backend.execute(self.batches.pop()))


def _conversations(seed: int) -> list[Launch]:
    turns = prompts(NUM_PROGRAMS * NUM_TURNS, TURN_TOKENS, seed)
    return [talk(turns[n::NUM_PROGRAMS], NEW_TOKENS) for n in range(NUM_PROGRAMS)]


def measure(pools: dict[str, Pool]) -> dict[str, Cost]:
    """The cheapest of some runs; the pools take turns, in an order that alternates."""
    costs: dict[str, list[Cost]] = {name: [] for name in pools}
    for number in range(ROUNDS):
        for name in list(pools)[:: 1 if number % 2 else -1]:
            costs[name].append(pools[name].cost(number))
    return {
        name: Cost(min(cost.wall_s for cost in runs), min(cost.cpu_s for cost in runs))
        for name, runs in costs.items()
    }


def main() -> None:
    directory = ensure_model(MODEL_DIR)
    quarter = DEMAND_PAGES // 4
    sizes = {
        "all that is wanted": (DEMAND_PAGES, 0),
        "a quarter": (quarter, 0),
        "a quarter, as much in host memory": (quarter, quarter),
    }
    pools = {name: Pool(directory, *pages) for name, pages in sizes.items()}
    costs = measure(pools)
    Console(file=sys.stdout, width=110).print(_table(pools, sizes, costs))
    for pool in pools.values():
        pool.close()


def _table(
    pools: dict[str, Pool], sizes: dict[str, tuple[int, int]], costs: dict[str, Cost]
) -> Table:
    shown = Table(
        title=f"{NUM_PROGRAMS} conversations of {NUM_TURNS} turns, {TURN_TOKENS} tokens in and "
        f"{NEW_TOKENS} out each, by the size of the pool"
    )
    for column in ("pages", "tokens/s", "throughput", "per CPU second", "computed again"):
        shown.add_column(column, justify="left" if column == "pages" else "right")
    whole = next(iter(costs.values()))
    for name, pool in pools.items():
        counters = pool.stepper.state.counters
        shown.add_row(
            f"{name} ({sizes[name][0]})",
            f"{NUM_PROGRAMS * NUM_TURNS * NEW_TOKENS / costs[name].wall_s:.0f}",
            f"{whole.wall_s / costs[name].wall_s:.2f}x",
            f"{whole.cpu_s / costs[name].cpu_s:.2f}x",
            f"{counters.recomputed_tokens / counters.computed_tokens:.0%}",
        )
    return shown


if __name__ == "__main__":
    main()
