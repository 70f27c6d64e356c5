"""Index arrays for kernels over pages: the same attention as torch's, whatever the batch holds."""

from __future__ import annotations

import random
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.gpu import reference
from benchmarks.gpu.cases import KINDS, random_row
from pie_backend.batch import Row
from pie_backend.engine.attention.flashinfer import FlashInferAttention
from pie_backend.engine.attention.gathered import GatheredAttention
from pie_backend.engine.attention.paged_plan import plan_pages
from pie_backend.engine.devices.cpu import CpuDevice
from pie_backend.engine.kv_cache import KVCache, KVShape
from pie_backend.engine.ops.flashinfer.library import Kernels
from pie_backend.engine.ragged import flatten

KERNELS = cast(Kernels, reference)
NUM_HEADS, NUM_KV_HEADS, HEAD_DIM = 6, 2, 8
NUM_PAGES = 60


def both(shape: KVShape) -> tuple[KVCache, KVCache]:
    """Two pools of the same numbers."""
    pools = KVCache(shape, CpuDevice(), NUM_PAGES), KVCache(shape, CpuDevice(), NUM_PAGES)
    pools[0]._pool.normal_(generator=torch.Generator().manual_seed(5))
    pools[1]._pool.copy_(pools[0]._pool)
    return pools


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    st.integers(0, 1 << 32),
    st.sampled_from([1, 3, 4, 16]),
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=6),
)
def test_planned_pages_give_the_same_attention(seed: int, page_size: int, kinds: list[str]) -> None:
    """Rows that decode, prefill, hide and are masked, in one batch; the pool ends up the same."""
    source = random.Random(seed)
    pages = source.sample(range(NUM_PAGES), NUM_PAGES)
    rows = [random_row(source, kind, page_size, pages) for kind in kinds]
    shape = KVShape(1, NUM_KV_HEADS, HEAD_DIM, page_size, torch.float32)
    ours, theirs = both(shape)
    batch = flatten(rows, page_size)
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (
        torch.randn(len(batch.tokens), heads, HEAD_DIM, generator=generator)
        for heads in (NUM_HEADS, NUM_KV_HEADS, NUM_KV_HEADS)
    )

    planned = FlashInferAttention(KERNELS, ours, NUM_HEADS).plan(batch).attend(0, q, k, v)
    gathered = GatheredAttention(theirs, NUM_HEADS).plan(batch).attend(0, q, k, v)

    torch.testing.assert_close(planned, gathered, atol=2e-5, rtol=1e-4)
    assert torch.equal(ours._pool, theirs._pool)


def test_rows_go_to_the_kernel_that_is_made_for_them() -> None:
    """One token that sees all decodes, however short its last page; what hides a part is masked,
    and what hides whole pages only is not."""
    rows = [
        Row([0], 8, [5, 6, 7]),  # the third page holds the new token alone
        Row([0], 9, [8, 9, 10], hidden=[(4, 8)]),  # a whole page
        Row([0], 5, [11, 12], hidden=[(1, 3)]),
        Row([0, 0, 0], 3, [13, 14]),
        Row([0, 0], 0, [15], attention=[b"\x03", b"\x01"]),
    ]
    batch = flatten(rows, 4)
    plan = plan_pages(batch, 4)

    assert plan.decode is not None
    assert plan.causal is not None
    assert plan.masked is not None
    in_order = [rows[i] for i in batch.order]
    decoding = [in_order[place].pages for place in plan.decode.places]
    assert [[8, 9, 10], [5, 6, 7]] == decoding
    assert [8, 10, 5, 6, 7] == plan.decode.tables.indices.tolist()
    assert [2, 1] == plan.decode.tables.last_page_len.tolist()
    assert [0, 2, 5] == plan.decode.tables.indptr.tolist()
    assert [0, 3] == plan.causal.query_indptr.tolist()
    assert [2] == plan.causal.tables.last_page_len.tolist()
    # Of the first six places, without two; then both rows of the mask, ahead of the first token.
    expected = [True, False, False, True, True, True, True, True, True, False]
    assert expected == plan.masked.mask.tolist()  # type: ignore[union-attr]
    assert [0, 1, 3] == plan.masked.query_indptr.tolist()


def test_a_batch_of_one_kind_has_one_group() -> None:
    """No kernel is called for nothing, and its tokens are neighbours."""
    plan = plan_pages(flatten([Row([0], n, [n]) for n in range(4)], 4), 4)
    assert [[0, 1, 2, 3]] == [group.places for group in plan.groups]
    assert [1, 2, 3, 4] == plan.tables.last_page_len.tolist()
    assert np.array_equal(plan.places, [0, 1, 2, 3])


@pytest.mark.parametrize("shared", [(0, 1, 2), (2, 1, 0)])
def test_forks_share_pages(shared: tuple[int, int, int]) -> None:
    """Tables may name the same pages; each row's own tokens are on a page of its own."""
    rows = [Row([0], 12, [7, 8, 9, 20 + i]) for i in shared]
    plan = plan_pages(flatten(rows, 4), 4)
    assert [page for i in shared for page in (7, 8, 9, 20 + i)] == plan.tables.indices.tolist()
