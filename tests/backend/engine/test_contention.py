"""Loads that want more pages than the engine has: the tokens of a large pool, in float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from pie_backend.base import BackendError
from pie_backend.batch import Batch
from pie_backend.engine.devices.cpu import CpuDevice
from pie_backend.engine.engine import Engine
from pie_backend.engine.kv_cache import KVCache, KVShape
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.pressure import Expectation
from support.checkpoints import Checkpoint
from support.contention import PENALISED, Launch, branch, prompt_of, run, talk
from support.stepping import Stepper

OpenEngine = Callable[..., Engine]
PAGE_SIZE = 8
LOADS: dict[str, list[Launch]] = {
    "conversations": [
        talk([prompt_of(n, 15), prompt_of(n, 7)], 12, PENALISED if n % 3 == 0 else None)
        for n in range(8)
    ],
    "forks": [
        *(branch(prompt_of(n, 21), [prompt_of(n + i, 4) for i in range(3)], 14) for n in (1, 30)),
        talk([prompt_of(60, 20), prompt_of(61, 9)], 12),
    ],
    "waves": [replace(talk([prompt_of(n, 20)], 30), at_step=n // 4 * 20) for n in range(12)],
}


@pytest.mark.parametrize("load", list(LOADS))
def test_tokens_are_those_of_a_large_pool(
    qwen3: Checkpoint, open_engine: OpenEngine, load: str
) -> None:
    """Recomputed or brought back from host memory, in two sizes of pool."""
    engines = [
        open_engine(qwen3, page_size=PAGE_SIZE, kv_pages=num_pages, host_pages=host_pages)
        for num_pages, host_pages in ((400, 0), (8, 0), (8, 8), (20, 20))
    ]
    steppers = [
        Stepper(
            config=SchedulerConfig(max_batch_tokens=48),
            expectation=Expectation(mean_tokens=2, min_run_tokens=8),
            backend=engine,
        )
        for engine in engines
    ]
    calm, *pressed = [run(stepper, LOADS[load]) for stepper in steppers]

    assert [calm] * 3 == pressed
    assert len({token for tokens in calm for token in tokens}) > 50
    assert all(stepper.state.contexts.num_suspensions > 0 for stepper in steppers[1:])
    assert all(stepper.state.contexts.host.num_restored > 0 for stepper in steppers[2:])


def test_pages_come_back_bit_by_bit() -> None:
    """Over all layers and heads, whatever happens to the page meanwhile; in the order given."""
    cache = KVCache(KVShape(2, 3, 4, 5, torch.float32), CpuDevice(), num_pages=3, num_host_pages=2)
    cache._pool.copy_(torch.randn(cache._pool.shape))
    before = cache._pool.clone()

    cache.evict_pages([(0, 1), (2, 0), (1, 0)])
    cache.clear_pages([0, 1, 2])
    cache.restore_pages([(0, 2), (1, 1)])

    assert torch.equal(before[:, :, 1], cache._pool[:, :, 2])
    assert torch.equal(before[:, :, 0], cache._pool[:, :, 1])


@pytest.mark.parametrize(
    "moves",
    [
        {"evict": [(4, 0)]},
        {"evict": [(0, 2)]},
        {"restore": [(2, 0)]},
        {"restore": [(0, -1)]},
    ],
)
def test_refuses_moves_out_of_range(
    qwen3: Checkpoint, open_engine: OpenEngine, moves: dict[str, list[tuple[int, int]]]
) -> None:
    """A page or a slot that is not there is named, and nothing is touched."""
    engine = open_engine(qwen3, kv_pages=4, host_pages=2)

    with pytest.raises(BackendError, match=r"outside \[0, 4\) or \[0, 2\)"):
        engine.execute(Batch(7, [], **moves))


def test_host_memory_must_be_there_too(qwen3: Checkpoint, open_engine: OpenEngine) -> None:
    """Pages in host memory count like those of the pool."""
    with pytest.raises(BackendError, match=r"backend\.host_pages: 4 \+ 1000000000000 pages"):
        open_engine(qwen3, kv_pages=4, host_pages=10**12)
