"""The engine's edges: batches it refuses, memory it takes, and what it falls back to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pie_backend.base import BackendError
from pie_backend.batch import Batch, Row, Sampling
from pie_backend.engine import memory
from pie_backend.engine.attention.gathered import _group
from pie_backend.engine.devices.cpu import CpuDevice
from pie_backend.engine.engine import Engine
from pie_backend.engine.kv_cache import KVCache, KVShape
from pie_backend.engine.ops import linear
from pie_backend.engine.ragged import flatten
from support.checkpoints import Checkpoint, prompts
from support.driver import Driver

OpenEngine = Callable[..., Engine]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (Row([], 0, [0]), "covers positions"),
        (Row([1], -1, [0]), "covers positions"),
        (Row([1], 256, list(range(17))), "covers positions"),
        (Row([1] * 17, 0, [0]), "1 pages cannot hold 17 tokens"),
        (Row([1], 0, [20]), "pages are outside"),
        (Row([1], 0, [-1]), "pages are outside"),
        (Row([512], 0, [0]), "tokens are outside"),
        (Row([-1], 0, [0]), "tokens are outside"),
    ],
)
def test_refuses_what_is_out_of_range(
    qwen3: Checkpoint, open_engine: OpenEngine, row: Row, complaint: str
) -> None:
    """A row outside the pool, the context or the vocabulary is named by its place."""
    engine = open_engine(qwen3, kv_pages=20)
    with pytest.raises(BackendError, match=f"step 7, row 1: .*{complaint}"):
        engine.execute(Batch(7, [Row([1], 0, [1]), row]))
    with pytest.raises(BackendError, match="copies are outside"):
        engine.execute(Batch(7, [], [(0, 20)]))


def test_a_step_may_hold_no_row(qwen3: Checkpoint, open_engine: OpenEngine) -> None:
    """Copies alone, or nothing at all, are a step too."""
    engine = open_engine(qwen3, kv_pages=4)
    assert engine.execute(Batch(3, [], [(0, 1)])).tokens == []


def test_closed(qwen3: Checkpoint, open_engine: OpenEngine) -> None:
    """Closing twice is fine; executing afterwards is an error."""
    engine = open_engine(qwen3, kv_pages=4)
    engine.close()
    engine.close()
    with pytest.raises(BackendError, match="closed"):
        engine.execute(Batch(0, [Row([1], 0, [0])]))


def test_sampled_rows_do_not_depend_on_the_schedule(
    qwen3: Checkpoint, open_engine: OpenEngine
) -> None:
    """With seeds, sixteen rows together draw what each draws alone, in float32."""
    engine = open_engine(qwen3)
    wanted = [Sampling(0.9, 50, 0.95, 0.01, seed=seed) for seed in range(5)]

    def run(chosen: list[int], chunk: int | None) -> list[list[int]]:
        driver = Driver(engine, seed=len(chosen))
        return driver.run([driver.add(prompts(16)[i * 3], 20, wanted[i]) for i in chosen], chunk)

    together = run([0, 1, 2, 3, 4], chunk=9)
    assert [run([i], chunk=None)[0] for i in range(5)] == together


def test_without_packed_weights(
    qwen3: Checkpoint, open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where oneDNN cannot pack, plain products give the same tokens."""
    monkeypatch.setattr(linear, "PackedLinear", _refuse)
    driver = Driver(open_engine(qwen3))
    prompt = prompts(16)[4]
    assert driver.run([driver.add(prompt, 20)]) == [qwen3.generate(prompt, 20)]


def _refuse(weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    raise RuntimeError("no oneDNN here")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_products(dtype: torch.dtype) -> None:
    """The fused forms equal their definitions, with and without a bias."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    weight, x, other = normal(24, 40) * 0.2, normal(5, 40), normal(5, 24)
    close = (
        {"rtol": 0.02, "atol": 0.03} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-5}
    )
    with torch.inference_mode():
        for bias in (None, normal(24)):
            packed, plain = linear.make_linear(weight, bias), linear.PlainLinear(weight, bias)
            assert not isinstance(packed, linear.PlainLinear)
            torch.testing.assert_close(packed(x), plain(x), **close)
            torch.testing.assert_close(packed.silu(x), plain.silu(x), **close)
            torch.testing.assert_close(packed.times(x, other), plain.times(x, other), **close)
            torch.testing.assert_close(packed.plus(x, other), plain.plus(x, other), **close)


def test_decode_groups_keep_padding_small() -> None:
    """One long context does not make every short one pay for its length."""
    rows = [Row([0], 9, [0]) for _ in range(20)] + [Row([0], 4000, list(range(251)))]
    groups = _group(flatten(rows, 16).spans, 16)
    assert [len(group) for group in groups] == [20, 1]


def test_flatten_puts_decode_rows_first() -> None:
    """Slots, positions and entered pages follow the rows' own tables."""
    flat = flatten([Row([1, 2, 3], 3, [7, 5]), Row([9], 4, [2, 6])], 4)
    assert flat.order == [1, 0]
    assert flat.num_single == 1
    assert flat.tokens.tolist() == [9, 1, 2, 3]
    assert flat.positions.tolist() == [4, 3, 4, 5]
    assert flat.slots.tolist() == [24, 31, 20, 21]
    assert flat.entered_pages == [6, 5]


def test_pages_are_sized_by_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of what is free, never more than 64 full contexts, and at least one page."""
    monkeypatch.setattr(memory, "available_bytes", lambda: 4_000_000)
    room = CpuDevice().room_for_pages()
    assert memory.choose_num_pages(room, 1000, page_size=16, max_context=100_000) == 1000
    assert memory.choose_num_pages(room, 1000, page_size=16, max_context=100) == 64 * 7
    with pytest.raises(BackendError, match=r"set backend\.kv_pages"):
        memory.choose_num_pages(room, 2_000_000, page_size=16, max_context=100)


def test_available_memory_is_plausible() -> None:
    """The number is positive and no more than an exabyte."""
    assert 0 < memory.available_bytes() < 1 << 60


def test_pool_size_is_what_it_says() -> None:
    """page_bytes times num_pages is what the pool holds."""
    shape = KVShape(3, 2, 8, 4, torch.bfloat16)
    cache = KVCache(shape, CpuDevice(), 5)
    assert cache._pool.nbytes == shape.page_bytes * 5
