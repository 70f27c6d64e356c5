"""What penalties, biases and log probabilities ask of the scheduler."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import Any

import pytest

from pie_backend.batch import Adjustment, Batch, Sampling, SeenTokens
from pie_backend.dummy import expected_logprobs, expected_tokens
from pie_daemon.errors import PieError
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.params import GenerateParams
from support.stepping import Stepper

PROMPT = [11, 12, 13, 14, 15, 16]


@pytest.fixture
def stepper() -> Stepper:
    return Stepper()


def adjusted(**changes: Any) -> Sampling:
    return Sampling(adjustment=Adjustment(**changes))


@pytest.mark.parametrize("biases", [{512: 1.0}, dict.fromkeys(range(512), -100.0)])
def test_biases_must_leave_a_token_of_the_vocabulary(
    stepper: Stepper, biases: dict[int, float]
) -> None:
    """An id that the model does not have, or a ban on all that it has."""
    context = stepper.context(PROMPT)
    with pytest.raises(PieError, match=r"token 512 is outside|leaves no token"):
        stepper.state.generate(context, GenerateParams(adjusted(logit_bias=biases)))
    assert stepper.state.length(context) == 6


def counts(batch: Batch) -> list[dict[int, int] | None]:
    """Of each row, 0 for a token of the prompt only; None where it has none."""
    found = [row.samples[0].seen if row.samples else None for row in batch.rows]
    return [one and counted(one) for one in found]


def counted(seen: SeenTokens) -> dict[int, int]:
    times = Counter(dict.fromkeys(array("i", seen.prompt), 0))
    times.update(array("i", seen.drawn))
    return times


def test_counts_are_whole_after_a_prompt_in_chunks() -> None:
    """Only the row that draws has them, a chunk of a prompt counts once, and forks start anew."""
    stepper = Stepper(config=SchedulerConfig(max_batch_tokens=4))
    prompt = [11, 12, 11, 14, 15, 16]
    context = stepper.context(prompt)
    params = GenerateParams(adjusted(repetition_penalty=1.1), max_tokens=3)
    request = stepper.state.generate(context, params)
    stepper.run()
    drawn = stepper.drain(request)
    first = dict.fromkeys(prompt, 0)
    found = [counts(batch)[0] for batch in stepper.batches]
    assert [None, first, {**first, **dict(Counter(drawn[:1]))}] == found[:3]
    assert {**first, **dict(Counter(drawn[:2]))} == found[3]

    again = stepper.state.generate(stepper.state.fork(context), params)
    stepper.step()
    assert dict.fromkeys([*prompt, *drawn], 0) == counts(stepper.batches[-1])[0]
    stepper.run()
    assert expected_tokens([*prompt, *drawn], 3, params.sampling) == stepper.drain(again)


def test_presence_and_frequency_count_nothing_but_what_was_drawn(stepper: Stepper) -> None:
    """The prompt is not even sent; rows without penalties carry nothing."""
    stepper.start(PROMPT, 3)
    params = GenerateParams(adjusted(frequency_penalty=0.5), max_tokens=3)
    request = stepper.state.generate(stepper.context(PROMPT), params)
    biased = GenerateParams(adjusted(logit_bias={1: 2.0}), max_tokens=3)
    stepper.state.generate(stepper.context(PROMPT), biased)
    stepper.run()
    drawn = stepper.drain(request)
    wanted = [{}, dict(Counter(drawn[:1])), dict(Counter(drawn[:2]))]
    assert [[None, one, None] for one in wanted] == [counts(batch) for batch in stepper.batches]


def test_logprobs_stay_with_their_tokens(stepper: Stepper) -> None:
    """Through chunks, beside rows without, and after a cancellation that takes tokens back."""
    stepper.start([1, 2, 3], 9)
    params = GenerateParams(Sampling(logprobs=2), max_tokens=9, chunk_tokens=2)
    requests = [stepper.state.generate(stepper.context([*PROMPT, n]), params) for n in (1, 2)]
    for _ in range(3):
        stepper.step()
    cancelled = stepper.state.take(requests[0])
    assert cancelled is not None
    stepper.step()
    stepper.state.cancel(requests[0])
    assert stepper.state.take(requests[0]) is None
    stepper.run()
    kept = stepper.state.take(requests[1])
    assert kept is not None
    assert (3, 9) == (len(cancelled.tokens), len(kept.tokens))
    for chunk in (cancelled, kept):
        assert expected_logprobs(chunk.tokens, 2, 512) == chunk.logprobs
