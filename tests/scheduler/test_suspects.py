"""Which request is blamed for the end of workers, and which is not."""

from __future__ import annotations

import pytest

from pie_daemon.errors import PieError
from pie_daemon.scheduler.params import GenerateParams
from support.stepping import Stepper

PROMPT = [11, 12, 13, 14, 15, 16]


def started(num_requests: int) -> tuple[Stepper, list[int]]:
    stepper = Stepper()
    return stepper, [stepper.start([n + 1, *PROMPT], 9, f"o{n}") for n in range(num_requests)]


def rows_of_next(stepper: Stepper) -> int:
    batch = stepper.depart()
    return 0 if batch is None else len(batch.rows)


def test_one_death_blames_nobody() -> None:
    """All of them are in the next batch again."""
    stepper, requests = started(4)
    assert 4 == rows_of_next(stepper)
    stepper.die()
    assert 4 == rows_of_next(stepper)
    stepper.land()
    stepper.run()
    assert [stepper.expected([n + 1, *PROMPT], 9) for n in range(4)] == [
        stepper.drain(request) for request in requests
    ]


def test_after_two_each_is_tried_alone() -> None:
    """Until it has got two rows further; newcomers wait for that."""
    stepper, _ = started(3)
    for _ in range(2):
        stepper.depart()
        stepper.die()
    stepper.start([9, *PROMPT], 9, "late")
    assert [1] * 6 == [len(stepper.step().rows) for _ in range(6)]  # type: ignore[union-attr]
    assert 4 == rows_of_next(stepper)


def test_dying_twice_alone_convicts() -> None:
    """It was in a batch with others before; it fails, and they go on together."""
    stepper, requests = started(3)
    for _ in range(3):
        stepper.depart()
        assert not stepper.die().convicted
    assert 1 == rows_of_next(stepper)
    lost = stepper.die()
    assert lost.convicted
    (guilty,) = lost.requests
    with pytest.raises(PieError, match="workers died again and again") as caught:
        stepper.state.take(guilty)
    assert "internal" == caught.value.code
    stepper.run()
    for number, request in enumerate(requests):
        if request != guilty:
            assert stepper.expected([number + 1, *PROMPT], 9) == stepper.drain(request)


def test_dying_once_alone_does_not_convict() -> None:
    """It is the next worker's first, and acquitted when it gets further."""
    stepper, requests = started(3)
    for _ in range(3):
        stepper.depart()
        stepper.die()
    accused = stepper.batches[-1].rows[0].tokens
    again = stepper.step()
    assert again is not None
    assert [accused] == [row.tokens for row in again.rows]
    stepper.run()
    assert not any(stepper.state._suspects._suspicions)
    assert [9] * 3 == [len(stepper.drain(request)) for request in requests]


def test_who_leaves_is_forgotten() -> None:
    """Its owner is gone, so nobody waits for its trial."""
    stepper, _ = started(2)
    for _ in range(2):
        stepper.depart()
        stepper.die()
    stepper.state.drop_owner("o0")
    assert 1 == len(stepper.state._suspects._suspicions)
    request = stepper.state.generate(stepper.context(PROMPT), GenerateParams(max_tokens=2))
    stepper.run()
    assert stepper.expected(PROMPT, 2) == stepper.drain(request)
