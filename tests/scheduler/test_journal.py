"""Contexts made of journals: the same content, wherever its KV comes from."""

from __future__ import annotations

import pytest

from pie_backend.dummy import expected_tokens
from pie_daemon.errors import PieError
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.journal import Journal
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.visibility import Ranges
from support.stepping import Stepper

PROMPT = list(range(1, 15))
LATER = [20, 21, 22]
HIDDEN: list[Ranges] = [*([()] * 13), *([((1, 6),)] * 4)]


def saved(stepper: Stepper) -> Journal:
    """Of a context that saw all at first, and then less."""
    context = stepper.context(PROMPT)
    stepper.state.flush(context)
    stepper.run()
    stepper.state.set_visible(context, 1, 6, False)
    stepper.state.append(context, LATER)
    stepper.state.flush(context)
    stepper.run()
    journal = stepper.state.saving.snapshot(context)
    stepper.state.drop_context(context)
    return journal


def generated(stepper: Stepper, context: int) -> list[int]:
    request = stepper.state.generate(context, GenerateParams(max_tokens=5))
    stepper.run()
    return stepper.drain(request)


def test_its_pages_are_found_again_while_they_are_there() -> None:
    """Those with hidden tokens too; a save holds none of them."""
    stepper = Stepper()
    journal = saved(stepper)
    pool = stepper.state.contexts.pool
    assert pool.num_free == pool.num_pages
    opened = stepper.state.open_journal("two", journal)
    assert expected_tokens(PROMPT + LATER, 5, hidden=HIDDEN) == generated(stepper, opened)
    assert stepper.state.counters.found_tokens == 16


def test_they_are_computed_again_where_they_are_not() -> None:
    """In another daemon for instance; each token sees what it saw, so the tokens are the same."""
    journal = saved(Stepper())
    stepper = Stepper(page_size=3)
    opened = stepper.state.open_journal("two", journal)
    assert expected_tokens(PROMPT + LATER, 5, hidden=HIDDEN) == generated(stepper, opened)
    assert stepper.state.counters.found_tokens == 0


def test_a_hide_after_opening_holds_as_it_would_have_before() -> None:
    """What nothing had asked to compute is still open to it."""
    stepper = Stepper()
    context = stepper.context(PROMPT)
    stepper.state.flush(context)
    stepper.run()
    stepper.state.append(context, LATER)
    opened = stepper.state.open_journal("two", stepper.state.saving.snapshot(context))
    for one in (context, opened):
        stepper.state.set_visible(one, 0, 5, False)
        hidden = [*([()] * 14), *([((0, 5),)] * 3)]
        assert expected_tokens(PROMPT + LATER, 5, hidden=hidden) == generated(stepper, one)


def test_a_running_context_is_not_saved() -> None:
    """There is no telling what it would be."""
    stepper = Stepper()
    context = stepper.context(PROMPT)
    stepper.state.generate(context, GenerateParams(max_tokens=1))
    with pytest.raises(PieError, match="a request is running"):
        stepper.state.saving.snapshot(context)


def test_what_the_model_cannot_hold_is_refused() -> None:
    """It was saved with a longer context, or other tokens; no context is left over."""
    stepper = Stepper()
    for tokens in ([600], [1] * 40000):
        with pytest.raises(PieError):
            stepper.state.open_journal("one", journal_of(tokens))
    assert len(stepper.state.contexts) == 0


def journal_of(tokens: list[int]) -> Journal:
    return Journal(b"".join(token.to_bytes(4, "little") for token in tokens))


def test_the_highest_priority_of_a_family_goes_first() -> None:
    """Among its own; first come first among equals."""
    stepper = Stepper(config=SchedulerConfig(max_batch_rows=1))
    for priority in (0, 2, -1, 1, 2):
        context = stepper.context([priority + 5] * 13)
        stepper.state.generate(context, GenerateParams(max_tokens=1))
        stepper.state.set_priority(context, priority)
    stepper.run()
    order = [batch.rows[0].tokens[0] - 5 for batch in stepper.batches]
    assert [2, 2, 1, 0, -1] == order


def test_what_computed_which_tokens_is_part_of_a_journal() -> None:
    """Another request of the opened context changes it only for what is still open."""
    stepper = Stepper()
    context = stepper.state.contexts.get(stepper.context(PROMPT))
    context.adapters.set_from(4, "one")
    context.num_open = 2
    journal = stepper.state.saving.snapshot(context.id)
    opened = stepper.state.contexts.get(stepper.state.open_journal("two", journal))
    stepper.state.contexts.compute_with(opened, None)
    assert ((0, None), (4, "one"), (12, None)) == opened.adapters.runs
    assert ((0, None), (4, "one")) == context.adapters.runs == journal.adapters
