"""Which adapter computes which tokens: a small list against one entry per token."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pie_daemon.scheduler.adapter_runs import AdapterRuns

LENGTH = 24
changes = st.lists(
    st.tuples(st.integers(0, LENGTH), st.sampled_from([None, "x", "y"])), max_size=12
)


@given(changes=changes, cut=st.integers(0, LENGTH))
def test_runs_are_what_a_list_per_token_would_be(
    changes: list[tuple[int, str | None]], cut: int
) -> None:
    """After any changes and a cut: each token's adapter, the ends of rows, what is in use."""
    runs = AdapterRuns()
    wanted: list[str | None] = [None] * (LENGTH + 1)
    for start, adapter in changes:
        before = wanted[:]
        wanted[start:] = [adapter] * (LENGTH + 1 - start)
        assert runs.set_from(start, adapter) == (before != wanted)
    assert wanted == [runs.at(token) for token in range(LENGTH + 1)]
    for start in range(LENGTH):
        row = wanted[start : start + runs.limit(start, LENGTH + 1 - start)]
        assert [wanted[start]] * len(row) == row
        assert start + len(row) > LENGTH or wanted[start + len(row)] != wanted[start]
    runs.truncate(cut)
    assert wanted[:cut] == [runs.at(token) for token in range(cut)]
    assert runs.used == set(wanted[:cut]) - {None}
    other = runs.copy()
    other.set_from(0, "z")
    assert wanted[:cut] == [runs.at(token) for token in range(cut)]


@given(first=changes, second=changes)
def test_pages_have_the_same_content_when_every_token_has_the_same_adapter(
    first: list[tuple[int, str | None]], second: list[tuple[int, str | None]]
) -> None:
    """And never otherwise."""
    made = []
    for changed in (first, second):
        runs = AdapterRuns()
        for start, adapter in changed:
            runs.set_from(start, adapter)
        made.append(runs)
    for start in range(0, LENGTH, 4):
        tokens = [[runs.at(token) for token in range(start, start + 4)] for runs in made]
        contents = [runs.content(start, start + 4) for runs in made]
        assert (tokens[0] == tokens[1]) == (contents[0] == contents[1])
        assert [one == [None] * 4 for one in tokens] == [one == b"" for one in contents]
