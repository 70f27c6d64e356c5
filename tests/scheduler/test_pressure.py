"""Many requests at once, some of them cancelled in the middle."""

from __future__ import annotations

import random

import pytest

from pie_daemon.errors import PieError
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.request import CANCELLED
from support.stepping import Stepper


def test_cancelling_16_of_64_leaves_the_other_48_unchanged() -> None:
    """Cancelled between batches and in flight, in chunks and short of pages; none else notices."""
    rng = random.Random(7)
    stepper = Stepper(num_pages=300, config=SchedulerConfig(max_batch_tokens=40))
    prompts = [[rng.randrange(512) for _ in range(rng.randrange(1, 40))] for _ in range(64)]
    requests = [stepper.start(prompt, 24, f"owner-{n}") for n, prompt in enumerate(prompts)]
    victims = rng.sample(range(64), 16)
    remaining = victims.copy()
    got: dict[int, list[int]] = {n: [] for n in range(64)}
    spare = stepper.start([1], 1, "spare")
    while (stepper.depart()) is not None:
        if remaining and rng.random() < 0.4:
            victim = remaining.pop()
            stepper.state.cancel(requests[victim])
            assert stepper.state.finish(requests[victim]) == CANCELLED
        stepper.land()
        for number, request in enumerate(requests):
            if number not in victims or number in remaining:
                got[number] += stepper.drain(request)
                if request != spare and stepper.state.finish(request) is not None:
                    stepper.state.drop_owner(f"owner-{number}")
                    requests[number] = spare

    survivors = set(range(64)) - set(victims)
    assert {n: stepper.expected(prompts[n], 24) for n in survivors} == {
        n: got[n][:24] for n in survivors
    }


def test_everything_is_free_after_the_owners_are_dropped() -> None:
    """Waiting, running, finished and idle: dropping the owners leaves an empty pool."""
    stepper = Stepper(num_pages=12)
    for number in range(8):
        owner = f"owner-{number}"
        stepper.start([number] * 5, 9, owner)
        stepper.state.flush(stepper.context([number] * 3, owner))
    for _ in range(4):
        stepper.step()
    stepper.depart()
    for number in range(8):
        stepper.state.drop_owner(f"owner-{number}")
        stepper.state.drop_owner(f"owner-{number}")
    stepper.land()

    assert (12, 0, 0) == (
        stepper.state.contexts.pool.num_free,
        len(stepper.state.contexts),
        len(stepper.state.owners),
    )


def test_a_dead_backend_fails_what_is_unfinished() -> None:
    """Finished generations can still be taken; all others raise the error, and pages add up."""
    stepper = Stepper()
    done = stepper.start([1], 1)
    stepper.step()
    running = stepper.start([2], 9)
    stepper.step()
    waiting = stepper.state.generate(stepper.context([3]), GenerateParams(max_tokens=4))
    stepper.depart()

    failed = stepper.state.fail(PieError("internal", "it died"))

    assert [running, waiting] == failed
    assert stepper.expected([1], 1) == stepper.drain(done)
    for request in failed:
        assert stepper.state.ready(request)
        with pytest.raises(PieError, match="internal: it died"):
            stepper.state.take(request)
    stepper.state.check()
