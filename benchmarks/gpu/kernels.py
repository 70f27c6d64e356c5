"""Stage `kernels`: each against float64, on the very numbers that it was given."""

from __future__ import annotations

import random
from functools import partial

import torch

from benchmarks.gpu import reference
from benchmarks.gpu.cases import KINDS, random_row
from benchmarks.gpu.rows import Found, Task
from benchmarks.gpu.setup import Setup
from pie_backend.batch import Sample, Sampling
from pie_backend.engine.attention.flashinfer import FlashInferAttention
from pie_backend.engine.attention.gathered import GatheredAttention
from pie_backend.engine.devices.cpu import CpuDevice
from pie_backend.engine.kv_cache import KVCache, KVShape
from pie_backend.engine.ops.flashinfer.operators import FlashInferOperators
from pie_backend.engine.ragged import flatten
from pie_backend.engine.sampling import draw_tokens

_NUM_PAGES = 200
_TOLERANCE = 0.03
"""Of bfloat16: 8 bits of a number near 1, rounded in scores, weights and sums."""


def tasks(setup: Setup) -> list[Task]:
    found = [
        Task(
            f"attention, {kinds}, heads {heads[0]}/{heads[1]} of {dim}, pages of {size}",
            partial(
                _attention, setup, kinds, heads, KVShape(1, heads[1], dim, size, torch.bfloat16)
            ),
        )
        for dim in setup.head_dims
        for heads in setup.heads
        for size in (1, 16)
        for kinds in (*KINDS, "mixed")
    ]
    found += [
        Task(f"rotary positions, {dim}", partial(_rotary, setup, dim)) for dim in setup.head_dims
    ]
    found += [
        Task("root mean square", partial(_norm, setup)),
        Task("the same draws as on the host", partial(_draws, setup)),
        Task("pages to the host and back", partial(_moves, setup)),
    ]
    return found


def _attention(setup: Setup, kinds: str, heads: tuple[int, int], shape: KVShape) -> Found:
    """Four batches of eight rows; also what is written to the pages, bit by bit."""
    worst, is_same = 0.0, True
    for seed in range(4):
        source = random.Random(seed)
        pages = source.sample(range(_NUM_PAGES), _NUM_PAGES)
        chosen = KINDS * 2 if kinds == "mixed" else (kinds,) * 8
        rows = [random_row(source, kind, shape.page_size, pages) for kind in chosen]
        ours = KVCache(shape, setup.device, _NUM_PAGES)
        theirs = KVCache(shape, CpuDevice(), _NUM_PAGES)
        theirs._pool.normal_(generator=torch.Generator().manual_seed(seed))
        ours._pool.copy_(theirs._pool)
        batch = flatten(rows, shape.page_size)
        q, k, v = (
            _random(seed + n, len(batch.tokens), n, shape.head_dim) for n in (*heads, heads[1])
        )
        mine = FlashInferAttention(setup.kernels, ours, heads[0]).plan(
            flatten(rows, shape.page_size, setup.place)
        )
        found = mine.attend(0, *(x.to(setup.place) for x in (q, k, v))).cpu().double()
        theirs.write(0, batch.slots, k, v)
        wide = KVCache(
            KVShape(1, heads[1], shape.head_dim, shape.page_size, torch.float64),
            CpuDevice(),
            _NUM_PAGES,
        )
        wide._pool.copy_(theirs._pool)
        exact = GatheredAttention(wide, heads[0]).plan(batch)
        expected = exact.attend(0, q.double(), k.double(), v.double())
        worst = max(worst, float((found - expected).abs().max()))
        is_same = is_same and torch.equal(ours._pool.cpu(), theirs._pool)
    ok = worst < _TOLERANCE and is_same
    return Found(ok, {"largest error": worst, "pages": "the same" if is_same else "OTHERS"})


def _rotary(setup: Setup, dim: int) -> Found:
    """With positions in no order, against the reference."""
    positions = torch.randint(0, 5000, (300,), generator=torch.Generator().manual_seed(1))
    angles = torch.outer(torch.arange(5000).float(), 10000 ** -(torch.arange(0, dim, 2) / dim))
    rotations = torch.complex(angles.cos(), angles.sin())
    qkv = _random(2, 300, 8 + 2 * 2, dim)
    place = FlashInferOperators(setup.kernels).placement(
        rotations.to(setup.place), (8, 2), None, 1e-6
    )
    there = qkv.to(setup.place, copy=True)
    q, k, v = place(there, place.turns(positions.to(setup.place)))
    waves = torch.cat([rotations.real, rotations.imag], dim=-1)
    exact = qkv.double()
    reference.apply_rope_with_cos_sin_cache_inplace(
        positions, exact[:, :8], exact[:, 8:10], dim, waves, is_neox=False
    )
    error = float((torch.cat([q, k, v], 1).cpu().double() - exact).abs().max())
    return Found(error < _TOLERANCE, {"largest error": error})


def _norm(setup: Setup) -> Found:
    x, weight = _random(3, 64, 4096), _random(4, 4096)
    norm = FlashInferOperators(setup.kernels).norm(weight.to(setup.place), 1e-5)
    wide = x.double()
    expected = wide * (wide.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * weight.double()
    error = float((norm(x.to(setup.place)).cpu().double() - expected).abs().max())
    return Found(error < 2 * _TOLERANCE, {"largest error": error})


def _draws(setup: Setup) -> Found:
    """Of the same float32 logits, by the same (seed, draw): one token in two hundred may differ,
    where sums that are rounded in another order fall on the other side of a random number."""
    source = random.Random(5)
    logits = torch.randn(400, 3000, generator=torch.Generator().manual_seed(5)) * 3
    samples = [
        Sample(
            0,
            Sampling(
                source.choice([0.0, 0.7, 1.3]),
                source.choice([0, 40]),
                source.choice([1.0, 0.9]),
                source.choice([0.0, 0.05]),
                source.getrandbits(64),
            ),
            draw=number,
        )
        for number in range(400)
    ]
    here = draw_tokens(logits.clone(), samples)
    there = draw_tokens(logits.to(setup.place, copy=True), samples)
    others = sum(a != b for a, b in zip(here, there, strict=True))
    return Found(others <= 2, {"drawn": 400.0, "others": float(others)})


def _moves(setup: Setup) -> Found:
    """Pages that go to the host, are overwritten and come back elsewhere."""
    shape = KVShape(4, 2, 64, 16, torch.bfloat16)
    cache = KVCache(shape, setup.device, 64, 64)
    cache._pool.normal_()
    before = cache._pool.clone()
    cache.evict_pages([(page, 63 - page) for page in range(64)])
    cache.clear_pages(list(range(64)))
    cache.restore_pages([(slot, slot) for slot in range(64)])
    setup.device.finish()
    return Found(torch.equal(cache._pool, before.flip(2)), {"pages": 64.0})


def _random(seed: int, *size: int) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed)).bfloat16()
