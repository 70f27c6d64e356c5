"""Programs that decode by one host call a token, through a real component."""

from __future__ import annotations

import pytest

from pie_backend.dummy import expected_tokens
from pie_daemon.runtime.outcome import Budgets
from support.rig import Rig
from support.waiting import until

WAYS = ("next_token", "passes")
"""Whatever happens to one of them, the other would have met the same."""


@pytest.mark.parametrize("by", WAYS)
def test_a_loop_draws_what_the_backend_draws(rig: Rig, by: str) -> None:
    """Greedy, from the prompt on."""
    tokens = expected_tokens(list(b"hello"), 24)
    assert [tokens, ""] == rig.run("behave", do="next_tokens", prompt="hello", max_tokens=24, by=by)


@pytest.mark.parametrize("by", WAYS)
def test_a_spent_budget_ends_a_loop_with_an_error(rig: Rig, by: str) -> None:
    """After exactly the tokens that were granted."""
    budgets = Budgets(max_tokens_total=5)
    found = rig.run("behave", budgets, do="next_tokens", prompt="hello", max_tokens=24, by=by)
    assert [expected_tokens(list(b"hello"), 5), "quota"] == found


@pytest.mark.parametrize("by", WAYS)
def test_a_program_is_cancelled_within_a_pass(rig: Rig, by: str) -> None:
    """It never hears of it, and nothing of it is left: the rig looks when it closes."""
    instance = rig.launch("behave", do="next_tokens", prompt="hello", by=by)
    until(lambda: rig.scheduler.stats().generated_tokens >= 3)
    instance.cancel("its client")
    assert "cancelled" == rig.outcome(instance).status


def test_many_programs_decode_side_by_side(rig: Rig) -> None:
    """Each draws what it would alone."""
    prompts = [f"prompt {number}" for number in range(16)]
    asked = {"do": "next_tokens", "max_tokens": 12}
    running = [rig.launch("behave", prompt=prompt, **asked) for prompt in prompts]
    until(lambda: all(instance.done for instance in running))
    for prompt, instance in zip(prompts, running, strict=True):
        drawn = str(expected_tokens(list(prompt.encode()), 12)).replace(" ", "")
        assert drawn in (rig.outcome(instance).result or "").replace(" ", "")
