"""Guesses from repetitions: what is found, and how many are worth their work."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie_daemon.scheduler.drafts import DraftLength, DraftParams, NgramIndex
from pie_daemon.scheduler.policy import EqualDrafts, Room

LONG = [n * 7919 % 65521 for n in range(10_000)]


def drafted(journal: list[int], num_tokens: int, params: DraftParams | None = None) -> list[int]:
    index = NgramIndex(params or DraftParams())
    index.update(journal)
    return index.draft(journal, num_tokens)


def best_draft(journal: list[int], num_tokens: int, params: DraftParams) -> list[int]:
    """By looking at every place: the longest match, then the latest."""
    places = []
    for place in range(params.min_match, len(journal)):
        length = 0
        while (
            length < min(place, params.max_match)
            and journal[place - 1 - length] == journal[-1 - length]
        ):
            length += 1
        if length >= params.min_match:
            places.append((length, place))
    if not places:
        return []
    place = max(places)[1]
    guessed = list(journal)
    for i in range(num_tokens):
        guessed.append(guessed[place + i])
    return guessed[len(journal) :]


def test_what_followed_the_longest_match_is_guessed() -> None:
    """Two tokens match at the later place, three at the earlier one, which wins."""
    assert [40, 50] == drafted([1, 2, 3, 40, 50, 60, 9, 2, 3, 70, 80, 1, 2, 3], 2)


def test_of_equal_matches_the_latest_wins() -> None:
    """What was written last is likeliest to come again."""
    assert [5] == drafted([1, 2, 4, 1, 2, 5, 1, 2], 1)


def test_without_a_match_nothing_is_guessed() -> None:
    """One token alone is too little for the default."""
    assert [] == drafted([1, 2, 3, 9, 3], 4)
    assert [] == drafted([], 4)
    assert [9, 3, 9] == drafted([1, 2, 3, 9, 3], 3, DraftParams(min_match=1))


def test_a_guess_that_reaches_the_end_goes_round() -> None:
    """A loop is guessed on, beyond what is there to copy."""
    assert [2, 1, 2, 1, 2, 1, 2] == drafted([1, 2, 1, 2, 1], 7)
    assert [7] * 5 == drafted([7, 7, 7], 5)


@settings(max_examples=300, deadline=None)
@given(
    journal=st.lists(st.integers(0, 2), max_size=9),
    more=st.lists(st.integers(0, 2), max_size=4),
    min_match=st.integers(1, 3),
    wider=st.integers(0, 2),
)
def test_an_index_that_grew_finds_what_a_search_finds(
    journal: list[int], more: list[int], min_match: int, wider: int
) -> None:
    """Step by step or at once, the draft is that of the best place of all."""
    params = DraftParams(6, min_match, min_match + wider)
    index = NgramIndex(params)
    index.update(journal)
    for token in more:
        journal.append(token)
        index.update(journal)
    if len(journal) <= 8:  # so that no more places match than are looked at
        assert best_draft(journal, 6, params) == index.draft(journal, 6)


def test_a_long_context_is_taken_in_by_and_by() -> None:
    """No step pays for all of it; guesses come from what is known so far."""
    index = NgramIndex(DraftParams())
    journal = [*LONG, *LONG[:3]]
    index.update(journal)
    assert LONG[3:5] == index.draft(journal, 2)
    journal = [*LONG, *LONG[9000:9003]]
    assert [] == index.draft(journal, 2)
    index.update(journal)
    index.update(journal)
    assert LONG[9003:9005] == index.draft(journal, 2)


def test_right_guesses_make_them_longer_and_wrong_ones_shorter() -> None:
    """One more than came true last time; twice as many when all did."""
    length = DraftLength(8)
    assert 8 == length.next(1)
    length.learn(8, 2)
    assert 3 == length.next(1)
    length.learn(3, 3)
    assert 6 == length.next(1)
    length.learn(6, 6)
    assert 8 == length.next(1)
    length.learn(8, 0)
    assert 1 == length.next(1)


def pauses(length: DraftLength, num_steps: int, num_rows: int) -> list[int]:
    """Steps without a guess before each one with a guess, none of which comes true."""
    found, skipped = [], 0
    for _ in range(num_steps):
        num_tokens = length.next(num_rows)
        if num_tokens:
            found.append(skipped)
            skipped = 0
            length.learn(num_tokens, 0)
        else:
            skipped += 1
    return found


@pytest.mark.parametrize(("num_rows", "num_tries"), [(1, 11), (8, 4), (32, 2)])
def test_guessing_pauses_for_longer_while_nothing_comes_true(num_rows: int, num_tries: int) -> None:
    """After a few tries 8 steps without, then 16, up to 512: sooner the more rows there are."""
    found = pauses(DraftLength(8), 5000, num_rows)
    assert [*[0] * num_tries, 8, 16, 32, 64, 128, 256, 512, 512] == found[: num_tries + 8]


def test_a_guess_that_comes_true_ends_the_long_pauses() -> None:
    """The next failure begins with the short pause again."""
    length = DraftLength(8)
    pauses(length, 200, 8)
    while not (num_tokens := length.next(8)):
        pass
    length.learn(num_tokens, num_tokens)
    assert 8 == max(pauses(length, 14, 8))


def test_what_pays_alone_may_not_pay_among_many() -> None:
    """Two in eight: a row alone goes on guessing, one of 32 pauses."""
    for num_rows, paused in ((1, False), (32, True)):
        length = DraftLength(8)
        for _ in range(20):
            if length.next(num_rows):
                length.learn(8, 2)
        assert paused == any(length.next(num_rows) == 0 for _ in range(8))


@pytest.mark.parametrize(
    ("max_tokens", "num_rows", "max_batch_tokens", "each"),
    [
        (64, 1, 2048, 64),
        (64, 8, 2048, 8),
        (64, 16, 2048, 4),
        (64, 17, 2048, 0),
        (5, 2, 2048, 2),
        (5, 3, 2048, 0),
        (64, 2, 8, 3),
        (64, 8, 8, 0),
        (0, 1, 2048, 0),
    ],
)
def test_rows_share_what_is_left(
    max_tokens: int, num_rows: int, max_batch_tokens: int, each: int
) -> None:
    """Equal parts, and none where they would be too small to pay."""
    found = EqualDrafts(max_tokens).share([1] * num_rows, max_batch_tokens)
    assert Room(num_rows, each) == found
