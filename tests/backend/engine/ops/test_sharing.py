"""Which rows begin with the same pages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_backend.engine.ops.native.sharing import (
    FEWEST_TOKENS,
    MOST_LEVELS,
    Group,
    find_sharing,
)

PAGE_SIZE = 32
TRUNK = [90, 91, 92]


def test_rows_of_nobody_else() -> None:
    found = find_sharing([[1, 2, 3], [4, 5, 6]], [2, 2], PAGE_SIZE)
    assert found.levels == []
    assert found.begins == [0, 0]
    assert found.num_spared == 0


def test_rows_of_one_beginning_are_a_group() -> None:
    found = find_sharing([[*TRUNK, 1], [7], [*TRUNK, 2]], [3, 0, 3], PAGE_SIZE)
    assert found.levels == [[Group([0, 2], 0, 96)]]
    assert found.begins == [96, 0, 96]
    assert found.num_spared == 96


def test_a_branch_that_branches_again_is_a_group_of_the_next_level() -> None:
    tables = [[*TRUNK, 80, 81, 1], [*TRUNK, 80, 81, 2], [*TRUNK, 3], [*TRUNK, 4]]
    found = find_sharing(tables, [5, 5, 3, 3], PAGE_SIZE)
    assert found.levels == [[Group([0, 1, 2, 3], 0, 96)], [Group([0, 1], 96, 160)]]
    assert found.begins == [160, 160, 96, 96]


def test_pages_that_a_row_does_not_see_as_a_whole_are_not_shared() -> None:
    found = find_sharing([TRUNK, TRUNK, TRUNK], [3, 3, 2], PAGE_SIZE)
    assert found.levels == [[Group([0, 1, 2], 0, 64)]]
    assert found.begins == [64, 64, 64]


def test_too_few_tokens_belong_to_the_group_below() -> None:
    tables = [[90, 80, 81, 1], [90, 80, 81, 2], [90, 3]]
    found = find_sharing(tables, [3, 3, 1], PAGE_SIZE)
    assert found.levels == [[Group([0, 1], 0, 96)]]
    assert found.begins == [96, 96, 0]


def test_levels_end_somewhere() -> None:
    deep = list(range(100, 140))
    tables = [[*deep[:depth], depth] for depth in range(2, 30, 2)] * 2
    found = find_sharing(tables, [len(table) - 1 for table in tables], PAGE_SIZE)
    assert len(found.levels) == MOST_LEVELS


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=12),
    st.data(),
)
def test_every_token_before_a_row_s_own_is_in_one_group(
    tables: list[list[int]], data: st.DataObject
) -> None:
    """Page numbers say nothing about their place, so equal ones are made different by it."""
    tables = [[10 * place + page for place, page in enumerate(table)] for table in tables]
    wholes = [data.draw(st.integers(0, len(table))) for table in tables]
    found = find_sharing(tables, wholes, PAGE_SIZE)
    covered = [0] * len(tables)
    for level in found.levels:
        members = [row for group in level for row in group.rows]
        assert len(members) == len(set(members)), "a row is twice in a level"
        for group in level:
            assert group.end - group.begin >= FEWEST_TOKENS
            assert len(group.rows) > 1
            pages = {tuple(tables[row][: group.end // PAGE_SIZE]) for row in group.rows}
            assert len(pages) == 1, "rows of a group have different pages"
            for row in group.rows:
                assert covered[row] == group.begin
                assert group.end <= wholes[row] * PAGE_SIZE
                covered[row] = group.end
    assert covered == found.begins


@pytest.mark.parametrize("num_rows", [0, 1])
def test_nobody_to_share_with(num_rows: int) -> None:
    assert find_sharing([TRUNK] * num_rows, [3] * num_rows, PAGE_SIZE).levels == []
