"""Rows of a page follow from each other, and stop doing so whenever that would change a token."""

from __future__ import annotations

from itertools import pairwise

from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.policy import FollowTheFirst
from support.stepping import Stepper

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5]


def test_a_page_table_is_made_once_for_all_rows_of_a_page() -> None:
    """Pages have four tokens, and the prompt ends one token after a page's beginning."""
    steps = Stepper(config=SchedulerConfig(max_burst=1))
    request = steps.start(PROMPT, 8)
    steps.run()
    assert steps.drain(request) == steps.expected(PROMPT, 8)
    tables = [batch.rows[0].pages for batch in steps.batches[1:]]
    is_same = [one is before for before, one in pairwise(tables)]
    assert [True, True, False, True, True, True] == is_same


def test_a_request_that_ends_in_flight_leaves_no_stride_behind() -> None:
    """The next one on its context begins where the program saw it."""
    steps = Stepper()
    context = steps.context(PROMPT)
    first = steps.state.generate(context, GenerateParams(max_tokens=20))
    for _ in range(3):
        steps.step()
    taken = steps.drain(first)
    steps.depart()
    steps.state.cancel(first)
    steps.land()
    second = steps.state.generate(context, GenerateParams(max_tokens=6))
    steps.run()
    assert steps.drain(second) == steps.expected([*PROMPT, *taken], 6)


def test_a_page_that_is_published_late_is_exchanged_for_its_twin_first() -> None:
    """Both compute the prompt; one is cancelled meanwhile, so that its pages are not published."""
    steps = Stepper(
        config=SchedulerConfig(share_prefixes=True), follow=FollowTheFirst(min_tokens=1000)
    )
    kept, cancelled = (steps.context(PROMPT, owner) for owner in "ab")
    steps.state.generate(kept, GenerateParams(max_tokens=1))
    request = steps.state.generate(cancelled, GenerateParams(max_tokens=1))
    steps.depart()
    steps.state.cancel(request)
    steps.land()
    again = steps.state.generate(cancelled, GenerateParams(max_tokens=3))
    steps.run()
    assert steps.drain(again) == steps.expected(PROMPT, 3)
    twins = steps.state.contexts.get(kept).pages[:2]
    assert twins == steps.batches[-1].rows[0].pages[:2]
