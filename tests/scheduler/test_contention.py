"""Loads that want more pages than there are: every program gets the tokens of a large pool."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.pressure import Expectation
from support.contention import PENALISED, Launch, branch, prompt_of, run, talk
from support.stepping import Stepper

PAGE_SIZE = 8
PAGES_PER_PROGRAM = 8  # 64 tokens, the whole of the smallest pool
SYSTEM = prompt_of(249, 12)


def chat(number: int, num_turns: int = 3) -> Launch:
    """Up to 58 tokens over three turns; every fourth one samples with penalties."""
    turns = [prompt_of(number, 15), prompt_of(number, 7), prompt_of(number, 6)][:num_turns]
    return replace(
        talk(turns, 10, PENALISED if number % 4 == 0 else None), user=f"user-{number % 3}"
    )


def forks(number: int, num_forks: int = 3) -> Launch:
    """Three ways from 21 tokens on."""
    tails = [prompt_of(number + tail, 4) for tail in range(num_forks)]
    return replace(branch(prompt_of(number, 21), tails, 14), user=f"user-{number % 3}")


def at(step: int, launches: list[Launch]) -> list[Launch]:
    return [replace(launch, at_step=step) for launch in launches]


SCENARIOS: dict[str, list[Launch]] = {
    "2 workflows": [chat(1), chat(2)],
    "3-way fork": [forks(1)],
    "sequential reuse": [
        replace(talk([SYSTEM + prompt_of(n, 5), prompt_of(n, 6)], 12), at_step=30 * n)
        for n in range(5)
    ],
    "8 programs": [chat(n) for n in range(8)],
    "64 programs": [chat(n, 1 + n % 2) for n in range(64)],
    "waves": [one for n in range(4) for one in at(25 * n, [chat(8 * n + i, 2) for i in range(6)])],
    "bursts": [one for n in range(3) for one in at(50 * n, [chat(20 * n + i) for i in range(12)])],
    "fork under pressure": [chat(1), chat(2), forks(3), forks(9), chat(5), forks(20, 5)],
}
POOLS = [8, 13, 32, 64]


def contend(launches: list[Launch], num_pages: int, host_pages: int, expected: int) -> Stepper:
    """Runs them and compares with a pool that has room for all."""
    stepper = Stepper(
        num_pages=num_pages,
        host_pages=host_pages,
        page_size=PAGE_SIZE,
        config=SchedulerConfig(max_batch_tokens=48),
        expectation=Expectation(mean_tokens=expected, min_run_tokens=8),
    )
    large = Stepper(num_pages=PAGES_PER_PROGRAM * 6 * len(launches), page_size=PAGE_SIZE)
    assert run(large, launches) == run(stepper, launches)
    pool = stepper.state.contexts.pool
    assert (num_pages, 0) == (pool.num_free, len(stepper.state.contexts))
    assert 0 == large.state.counters.preemptions == large.state.contexts.num_suspensions
    return stepper


@pytest.mark.parametrize("host_share", [0, 1])
@pytest.mark.parametrize("num_pages", POOLS)
@pytest.mark.parametrize("name", list(SCENARIOS))
def test_every_load_gets_the_tokens_of_a_large_pool(
    name: str, num_pages: int, host_share: int
) -> None:
    """Whatever is promised: too little, so that running programs give way, or the worst case."""
    for expected in (2, 128):
        contend(SCENARIOS[name], num_pages, num_pages * host_share, expected)


def test_four_times_the_demand_wastes_little() -> None:
    """Conversations: with host memory for as many pages, few tokens are computed again."""
    launches = [chat(n, 2) for n in range(32)]  # 160 pages in all
    without, beside = (contend(launches, 40, host_pages, 2) for host_pages in (0, 40))
    lost = without.state.counters.recomputed_tokens
    assert 0 < lost < without.state.counters.computed_tokens / 2
    assert beside.state.contexts.host.num_restored > 0
    assert beside.state.counters.recomputed_tokens < lost / 2


@pytest.mark.parametrize("host_share", [0, 1])
def test_four_times_the_demand_keeps_the_pool_busy(host_share: int) -> None:
    """Generations that all use their limit: batches are as full as the pool allows."""
    launches = [replace(talk([prompt_of(n, 16)], 40), user=f"{n % 3}") for n in range(32)]
    stepper = contend(launches, 56, 56 * host_share, 2)  # 7 pages each, 8 at once
    counters = stepper.state.counters

    # 8 rows at once would take 32 / 8 * 40 batches.
    assert counters.steps < 1.2 * 160
    assert counters.recomputed_tokens < 0.4 * counters.computed_tokens
