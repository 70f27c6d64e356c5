"""Evenness between users whose work is computed by several state machines."""

from __future__ import annotations

import pytest

from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.owners import Shares
from pie_daemon.scheduler.params import GenerateParams
from support.stepping import Stepper


def start(stepper: Stepper, owner: str, user: str, max_tokens: int) -> None:
    if stepper.state.owners.find(owner) is None:
        stepper.state.owners.add(owner, user)
    context = stepper.state.create_context(owner)
    stepper.state.append(context, [1, 2, 3])
    stepper.state.generate(context, GenerateParams(max_tokens=max_tokens, chunk_tokens=0))


@pytest.mark.parametrize(("joined", "served"), [(True, "bob"), (False, "ann")])
def test_who_had_much_on_one_replica_waits_on_another(joined: bool, served: str) -> None:
    """Ann, who came first there, is served behind Bob, who had nothing yet; without a common
    account she would be first."""
    shares = Shares()
    one, other = (Stepper(config=SchedulerConfig(max_batch_rows=1)) for _ in range(2))
    for stepper in (one, other):
        if joined:
            stepper.state.join(shares)
    start(one, "a", "ann", 30)
    while (batch := one.state.decide()) is not None:
        one.state.complete(one.backend.execute(batch))

    start(other, "a", "ann", 5)
    start(other, "b", "bob", 5)
    assert other.state.decide() is not None
    [running] = other.state.running.values()
    assert served == running.context.owner.user_name


def test_shares_go_with_the_last_owner_of_all_replicas() -> None:
    """Nothing of a user stays behind, and nothing goes while one replica still knows an owner."""
    shares = Shares()
    one, other = Stepper(), Stepper()
    for stepper in (one, other):
        stepper.state.join(shares)
        stepper.state.owners.add("a", "ann", None, None, 10)
    one.state.drop_owner("a")
    assert {"ann"} == set(shares.users)
    assert 1 == len(shares.quotas["a"].owners)
    other.state.drop_owner("a")
    assert ({}, {}, {}) == (shares.users, shares.roots, shares.quotas)
