"""What ranks tell each other, between threads that stand for processes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from pie_backend.engine.parallel.group import Group, LoopbackGroup, join
from pie_backend.engine.parallel.team import own, own_rounded_up

SIZE = 3


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> list[LoopbackGroup]:
    meeting = str(tmp_path_factory.mktemp("meeting") / "file")
    with ThreadPoolExecutor(SIZE) as pool:
        return list(pool.map(lambda rank: join(meeting, rank, SIZE), range(SIZE)))


def together(groups: list[LoopbackGroup], call: object) -> list[object]:
    with ThreadPoolExecutor(SIZE) as pool:
        return list(pool.map(call, groups))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_rows", [1, 7, 4000])
@pytest.mark.parametrize("way", [LoopbackGroup.sum, Group.sum])
def test_sums(groups: list[LoopbackGroup], dtype: torch.dtype, num_rows: int, way: object) -> None:
    """Few numbers and many: what torch adds, and the same bits on every rank."""
    generator = torch.Generator().manual_seed(num_rows)
    parts = [torch.randn(num_rows, 96, generator=generator).to(dtype) for _ in range(SIZE)]
    expected = torch.stack(parts).float().sum(0)
    found = together(groups, lambda group: way(group, parts[group.rank].clone()))  # type: ignore[operator]
    assert all(torch.equal(found[0], other) for other in found)  # type: ignore[arg-type]
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(found[0].float(), expected, atol=tolerance, rtol=0.02)  # type: ignore[attr-defined]


def test_everybody_gets_every_part_and_the_least_number(groups: list[LoopbackGroup]) -> None:
    """In the order of ranks, also of what does not lie together in memory."""
    for parts in together(groups, lambda group: group.gather(torch.full((4, 2), group.rank).T)):
        assert [[0, 1, 2]] * 2 == [[int(part[row, 0]) for part in parts] for row in (0, 1)]  # type: ignore[attr-defined]
    assert [40] * SIZE == together(groups, lambda group: group.least(40 + group.rank))


def test_parts_cover_everything_once(groups: list[LoopbackGroup]) -> None:
    """Even ones, and those of a number that ranks do not divide."""
    assert [(0, 4), (4, 8), (8, 12)] == [own(group, 12) for group in groups]
    assert [(0, 2), (2, 4), (4, 4)] == [own_rounded_up(group, 4) for group in groups]
