"""The record of what tokens saw, against sets of hidden indices; and what hiding does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_backend.dummy import expected_tokens
from pie_daemon.errors import PieError
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.visibility import EVERYTHING, MAX_RANGES, Ranges, Visibility, num_visible
from support.stepping import Stepper

LENGTH = 24
spans = st.tuples(st.integers(0, LENGTH), st.integers(0, LENGTH)).map(sorted)
changes = st.lists(
    st.one_of(
        st.tuples(st.just("change"), st.integers(0, 3), spans, st.booleans()),
        st.tuples(st.just("cut"), st.integers(0, 6)),
    ),
    max_size=12,
)


def indices(ranges: Ranges) -> set[int]:
    return {index for start, end in ranges for index in range(start, end)}


@given(changes)
def test_the_record_equals_a_set_per_token(changes: list[tuple[object, ...]]) -> None:
    """Whatever is hidden, shown and cut off; ranges stay sorted, apart and not empty."""
    record, length = EVERYTHING, LENGTH
    saw: list[set[int]] = [set() for _ in range(length)]
    current: set[int] = set()
    for kind, number, *rest in changes:
        if kind == "cut":
            length = max(0, length - number)  # type: ignore[operator]
            record = record.truncated(length)
            current = {index for index in current if index < length}
            saw = saw[:length]
            saw[-1:] = [current] * bool(saw)
        else:
            (start, end), visible = rest
            first = max(0, length - 1 - number)  # type: ignore[operator]
            named = set(range(start, end))
            changed = current - named if visible else current | named
            record = record.changed(first, start, end, visible)
            if changed != current:
                saw[first:] = [changed] * (length - first)
            current = changed
    assert indices(record.current) == current
    for index, unseen in enumerate(saw):
        before = set(range(index))
        assert indices(record.hidden_from(index)) & before == unseen & before
    check_form(record, length)


def check_form(record: Visibility, length: int) -> None:
    assert list(record.starts) == sorted(set(record.starts))
    for ranges in record.hidden:
        bounds = [bound for pair in ranges for bound in pair]
        assert bounds == sorted(set(bounds))
    for index in range(length):
        end = record.end_of_run(index, length)
        assert index < end <= length
        assert {record.hidden_from(i) for i in range(index, end)} == {record.hidden_from(index)}


@given(st.lists(st.tuples(st.integers(0, 7), spans, st.booleans()), min_size=1, max_size=6))
def test_pages_that_saw_the_same_are_described_alike(
    changes: list[tuple[int, list[int], bool]],
) -> None:
    """And those that did not are not, or they would share a key."""
    record = EVERYTHING
    for number, (later, (start, end), visible) in enumerate(changes):
        record = record.changed(4 * number + later % 4, start, end, visible)
    described: dict[bytes, list[set[int]]] = {}
    for other in (record, EVERYTHING):
        saw = [indices(other.hidden_from(index)) & set(range(index)) for index in range(8, 16)]
        assert described.setdefault(other.described(8, 16), saw) == saw
    assert EVERYTHING.described(8, 16) == b""


def test_the_record_is_bounded() -> None:
    """The refusal says by what, and what was recorded stays."""
    record = EVERYTHING

    def hide_on() -> None:
        nonlocal record
        for index in range(MAX_RANGES):
            record = record.changed(index, 2 * index, 2 * index + 1, False)

    with pytest.raises(PieError, match=str(MAX_RANGES)) as caught:
        hide_on()
    assert caught.value.code == "exhausted"
    assert 0 < sum(map(len, record.hidden)) <= MAX_RANGES


def test_visible_tokens_are_counted() -> None:
    """Ranges may reach beyond the length."""
    assert (5, 3, 0) == (
        num_visible((), 5),
        num_visible(((1, 2), (4, 9)), 5),
        num_visible(((0, 9),), 5),
    )


PROMPT = list(range(1, 13))


def hidden_after(num_before: int, num_tokens: int, *ranges: tuple[int, int]) -> list[Ranges]:
    return [()] * num_before + [ranges] * (num_tokens - num_before)


def generated(stepper: Stepper, context: int, num_tokens: int = 4) -> list[int]:
    request = stepper.state.generate(context, GenerateParams(max_tokens=num_tokens))
    stepper.run()
    return stepper.drain(request)


def flushed(stepper: Stepper, context: int) -> None:
    stepper.state.flush(context)
    stepper.run()


def test_a_hide_holds_for_the_last_token_and_those_to_come() -> None:
    """What was computed before keeps what it saw."""
    stepper = Stepper()
    context = stepper.context(PROMPT)
    flushed(stepper, context)
    stepper.state.set_visible(context, 2, 7, False)
    expected = expected_tokens(PROMPT, 4, hidden=hidden_after(11, 12, (2, 7)))
    assert expected == generated(stepper, context) != expected_tokens(PROMPT, 4)
    assert stepper.state.length(context) == 16


def test_a_hide_holds_for_tokens_that_wait_to_be_computed() -> None:
    """Appended but not flushed: they are computed after it."""
    stepper = Stepper()
    context = stepper.context(PROMPT)
    stepper.state.set_visible(context, 2, 7, False)
    assert expected_tokens(PROMPT, 4, hidden=[((2, 7),)] * 12) == generated(stepper, context)


@pytest.mark.parametrize("num_steps", range(6))
def test_how_far_batches_have_come_does_not_matter(num_steps: int) -> None:
    """A generation cancelled earlier or later leaves the same context: only calls count."""
    stepper = Stepper()
    context = stepper.context(PROMPT)
    request = stepper.state.generate(context, GenerateParams(max_tokens=9))
    for _ in range(num_steps):
        stepper.step()
    stepper.state.cancel(request)
    stepper.state.set_visible(context, 0, 5, False)
    assert expected_tokens(PROMPT, 4, hidden=hidden_after(11, 12, (0, 5))) == generated(
        stepper, context
    )


def test_showing_again_computes_nothing_but_the_last_token_again() -> None:
    """The pages of what was hidden are there still."""
    stepper = Stepper()
    context = stepper.context(PROMPT)
    flushed(stepper, context)
    stepper.state.set_visible(context, 0, 8, False)
    stepper.state.set_visible(context, 0, 8, True)
    before = stepper.state.counters.computed_tokens
    assert stepper.expected(PROMPT, 1) == generated(stepper, context, 1)
    assert stepper.state.counters.computed_tokens == before + 1


def test_a_fork_keeps_what_was_hidden_and_goes_its_own_way() -> None:
    """The record is shared until one of them changes it."""
    stepper = Stepper()
    context = stepper.context(PROMPT)
    stepper.state.set_visible(context, 0, 3, False)
    fork = stepper.state.fork(context)
    contexts = stepper.state.contexts
    assert contexts.get(fork).visibility is contexts.get(context).visibility
    stepper.state.set_visible(fork, 0, 3, True)
    assert expected_tokens(PROMPT, 4, hidden=[((0, 3),)] * 12) == generated(stepper, context)
    assert stepper.expected(PROMPT, 4) == generated(stepper, fork)


def test_computing_again_gives_the_same_as_the_first_time() -> None:
    """What each token saw is recorded, so lost pages change nothing."""
    stepper = Stepper()
    context = stepper.context(PROMPT)
    flushed(stepper, context)
    stepper.state.set_visible(context, 1, 6, False)
    stepper.state.append(context, [20, 21, 22])
    flushed(stepper, context)
    stepper.state.set_visible(context, 0, 15, True)
    held = stepper.state.contexts.get(context)
    stepper.state.contexts.rewind(held, 0)
    spoil_cache(stepper)
    tokens = [*PROMPT, 20, 21, 22]
    hidden = [*hidden_after(11, 14, (1, 6)), ()]
    assert expected_tokens(tokens, 4, hidden=hidden) == generated(stepper, context)


def spoil_cache(stepper: Stepper) -> None:
    """Makes the pool forget what it knows by content."""
    pool = stepper.state.contexts.pool
    pages = [pool.allocate() for _ in range(pool.num_free)]
    pool.free(pages)
    assert pool.num_cached == 0


def test_pages_computed_with_others_hidden_are_found_only_by_their_like() -> None:
    """Equal tokens that saw something else are another page."""
    stepper = Stepper()
    first, same, other = (stepper.context(PROMPT) for _ in range(3))
    stepper.state.set_visible(first, 0, 2, False)
    flushed(stepper, first)
    stepper.state.set_visible(same, 0, 2, False)
    stepper.state.set_visible(other, 0, 1, False)
    assert expected_tokens(PROMPT, 4, hidden=[((0, 1),)] * 12) == generated(stepper, other)
    assert stepper.state.counters.found_tokens == 0
    assert expected_tokens(PROMPT, 4, hidden=[((0, 2),)] * 12) == generated(stepper, same)
    assert stepper.state.counters.found_tokens == 8


@pytest.mark.parametrize("appended", [[], [20, 21, 22]])
def test_truncating_keeps_what_is_hidden_of_the_rest(appended: list[int]) -> None:
    """Places behind the end are forgotten: what comes there is visible."""
    stepper = Stepper()
    context = stepper.context(PROMPT)
    flushed(stepper, context)
    stepper.state.set_visible(context, 1, 4, False)
    stepper.state.set_visible(context, 6, 9, False)
    stepper.state.truncate(context, 6)
    stepper.state.append(context, appended)
    tokens = [*PROMPT[:6], *appended]
    hidden = hidden_after(5, len(tokens), (1, 4))
    assert expected_tokens(tokens, 4, hidden=hidden) == generated(stepper, context)


def test_ranges_outside_the_context_are_refused() -> None:
    """With what is allowed."""
    stepper = Stepper()
    context = stepper.context(PROMPT)
    for start, end in ((5, 13), (4, 3), (-1, 2)):
        with pytest.raises(PieError, match=r"within \[0, 12\)") as caught:
            stepper.state.set_visible(context, start, end, False)
        assert caught.value.code == "invalid-argument"


def test_a_generation_needs_something_visible() -> None:
    """Hiding everything is fine until something is to be drawn from it."""
    stepper = Stepper()
    context = stepper.context(PROMPT)
    stepper.state.set_visible(context, 0, 12, False)
    with pytest.raises(PieError, match="all 12 tokens of the context are hidden"):
        stepper.state.generate(context, GenerateParams(max_tokens=1))
    stepper.state.append(context, [20])
    hidden = [((0, 12),)] * 13
    assert expected_tokens([*PROMPT, 20], 2, hidden=hidden) == generated(stepper, context, 2)


def test_hiding_during_a_generation_is_refused() -> None:
    """Like every call that changes the context; its priority is not part of it."""
    stepper = Stepper()
    context = stepper.context(PROMPT)
    stepper.state.generate(context, GenerateParams(max_tokens=1))
    with pytest.raises(PieError, match="a request is running"):
        stepper.state.set_visible(context, 0, 1, False)
    stepper.state.set_priority(context, 1)
