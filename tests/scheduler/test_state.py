"""Contexts and requests in the pure state machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pie_backend.base import BackendError
from pie_backend.batch import Adjustment, BatchResult, Logprobs, Sampling
from pie_backend.dummy import Vocabulary, expected_tokens
from pie_daemon.errors import PieError
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.request import CANCELLED, FLUSHED, LENGTH
from pie_daemon.scheduler.state import SchedulerState
from support.stepping import Stepper

PROMPT = [11, 12, 13, 14, 15, 16]


def adjusted(**changes: Any) -> Sampling:
    return Sampling(adjustment=Adjustment(**changes))


@pytest.fixture
def stepper() -> Stepper:
    """A pool of 64 pages of 4 tokens."""
    return Stepper()


def test_generation_gives_the_reference_tokens(stepper: Stepper) -> None:
    """A generation over several pages ends with `length` and the tokens computed from scratch."""
    request = stepper.start(PROMPT, 12)
    stepper.run()

    assert stepper.expected(PROMPT, 12) == stepper.drain(request)
    assert stepper.state.finish(request) == LENGTH


def test_prompts_are_chunked_under_the_token_budget() -> None:
    """No batch has more tokens than allowed, and a long prompt gives the same tokens in chunks."""
    stepper = Stepper(config=SchedulerConfig(max_batch_tokens=5))
    prompts = [[20 + n] * 17 for n in range(4)]
    requests = [stepper.start(prompt, 6) for prompt in prompts]
    stepper.run()

    assert max(sum(len(row.tokens) for row in batch.rows) for batch in stepper.batches) == 5
    assert [stepper.expected(prompt, 6) for prompt in prompts] == [
        stepper.drain(request) for request in requests
    ]


def test_decoding_rows_share_a_batch_with_a_prompt(stepper: Stepper) -> None:
    """A newcomer's prompt is computed beside the token of one that decodes."""
    stepper.start([1], 9)
    stepper.step()
    stepper.start([2, 3, 4], 9)
    batch = stepper.step()

    assert batch is not None
    assert [1, 3] == [len(row.tokens) for row in batch.rows]


def test_length_and_tokens_show_what_was_handed_out(stepper: Stepper) -> None:
    """While a generation runs, the context looks as long as what `take` gave."""
    state = stepper.state
    context = stepper.context(PROMPT)
    request = state.generate(context, GenerateParams(max_tokens=5))
    for _ in range(3):
        stepper.step()
    assert state.length(context) == 6

    handed_out = state.take(request)

    assert handed_out is not None
    assert [9, PROMPT[4:] + handed_out.tokens] == [
        state.length(context),
        state.tokens(context, 4, 9),
    ]
    with pytest.raises(PieError, match="not a range"):
        state.tokens(context, 0, 10)


@pytest.mark.parametrize(
    "call",
    [
        lambda state, context: state.append(context, [1]),
        lambda state, context: state.truncate(context, 1),
        lambda state, context: state.fork(context),
        lambda state, context: state.flush(context),
        lambda state, context: state.generate(context, GenerateParams()),
    ],
    ids=["append", "truncate", "fork", "flush", "generate"],
)
def test_a_context_is_busy_until_its_generation_is_drained(
    stepper: Stepper, call: Callable[[SchedulerState, int], object]
) -> None:
    """Every mutating call and fork answer `busy` until the last chunk is taken."""
    context = stepper.context(PROMPT)
    request = stepper.state.generate(context, GenerateParams(max_tokens=2, chunk_tokens=0))
    stepper.run()
    with pytest.raises(PieError) as caught:
        call(stepper.state, context)
    assert caught.value.code == "busy"
    assert stepper.state.finish(request) is None

    stepper.drain(request)

    assert stepper.state.finish(request) == LENGTH
    call(stepper.state, context)


def test_chunks_are_as_large_as_asked(stepper: Stepper) -> None:
    """A chunk is ready with `chunk_tokens` tokens, or with fewer at the end; 0 waits for it."""
    state = stepper.state
    by_three = state.generate(stepper.context(PROMPT), GenerateParams(max_tokens=4, chunk_tokens=3))
    at_end = state.generate(stepper.context(PROMPT), GenerateParams(max_tokens=4, chunk_tokens=0))
    ready = []
    while stepper.step() is not None:
        ready.append((state.ready(by_three), state.ready(at_end)))
        if state.ready(by_three):
            state.take(by_three)

    assert [(False, False), (False, False), (True, False), (True, True)] == ready
    assert stepper.expected(PROMPT, 4) == stepper.drain(at_end)


def test_who_has_its_first_token_is_told_before_those_that_go_on(stepper: Stepper) -> None:
    """In a batch's delivery a first chunk stands before later ones, whatever the order of rows."""
    early = stepper.start(PROMPT, 4)
    stepper.step()
    stepper.drain(early)
    late = stepper.start(PROMPT[::-1], 4)

    stepper.depart()

    assert [late, early] == stepper.land().ready


def test_a_fork_shares_pages_and_copies_only_the_last(stepper: Stepper) -> None:
    """Forking a computed context takes no page; the first write into the shared one copies it."""
    state, pool = stepper.state, stepper.state.contexts.pool
    parent = stepper.context(PROMPT)
    state.flush(parent)
    stepper.run()
    num_free = pool.num_free

    children = [state.fork(parent) for _ in range(3)]
    assert num_free == pool.num_free
    for child, token in zip(children, (40, 41, 42), strict=True):
        state.append(child, [token])
    requests = [state.generate(child, GenerateParams(max_tokens=3)) for child in children]
    stepper.run()

    assert 3 == sum(len(batch.copies) for batch in stepper.batches)
    assert [stepper.expected([*PROMPT, token], 3) for token in (40, 41, 42)] == [
        stepper.drain(request) for request in requests
    ]
    assert PROMPT == state.tokens(parent, 0, 6)


def test_the_last_writer_of_a_shared_page_needs_no_copy(stepper: Stepper) -> None:
    """When all others have copied or gone, the page is the remaining context's own."""
    state = stepper.state
    parent = stepper.context(PROMPT)
    state.flush(parent)
    stepper.run()
    child = state.fork(parent)
    state.drop_context(parent)

    request = state.generate(child, GenerateParams(max_tokens=3))
    stepper.run()

    assert not any(batch.copies for batch in stepper.batches)
    assert stepper.expected(PROMPT, 3) == stepper.drain(request)


def test_truncate_into_a_shared_page_does_not_disturb_the_other(stepper: Stepper) -> None:
    """A fork cut in the middle of a page goes its own way; the parent keeps its tokens."""
    state = stepper.state
    parent = stepper.context(PROMPT)
    state.flush(parent)
    stepper.run()
    child = state.fork(parent)
    state.truncate(child, 2)
    state.append(child, [99])

    requests = [state.generate(each, GenerateParams(max_tokens=7)) for each in (child, parent)]
    stepper.run()

    assert stepper.expected([11, 12, 99], 7) == stepper.drain(requests[0])
    assert stepper.expected(PROMPT, 7) == stepper.drain(requests[1])


def test_generating_on_a_computed_context_computes_the_last_token_again(stepper: Stepper) -> None:
    """After a flush a generation needs one row of one token, and counts the rest as cached."""
    state = stepper.state
    context = stepper.context(PROMPT)
    flush = state.flush(context)
    assert flush is not None
    stepper.run()
    assert (FLUSHED, None) == (state.finish(flush), state.take(flush))
    assert state.flush(context) is None

    request = state.generate(context, GenerateParams(max_tokens=1))
    batch = stepper.step()

    assert batch is not None
    assert [[PROMPT[-1]]] == [row.tokens for row in batch.rows]
    assert state.usage(request).cached_tokens == 5


def test_a_flush_needs_no_budget_and_draws_nothing(stepper: Stepper) -> None:
    """Its rows ask for no sample."""
    stepper.state.flush(stepper.context(PROMPT))
    batch = stepper.step()

    assert batch is not None
    assert [[]] == [row.samples for row in batch.rows]


def test_cancel_ends_the_context_with_what_was_handed_out(stepper: Stepper) -> None:
    """Tokens that nobody took are forgotten, and generation goes on from there as from scratch."""
    state = stepper.state
    context = stepper.context(PROMPT)
    request = state.generate(context, GenerateParams(max_tokens=20))
    stepper.step()
    first = state.take(request)
    assert first is not None
    for _ in range(6):
        stepper.step()

    state.cancel(request)

    assert (CANCELLED, None) == (state.finish(request), state.take(request))
    assert PROMPT + first.tokens == state.tokens(context, 0, state.length(context))
    again = state.generate(context, GenerateParams(max_tokens=4))
    stepper.run()
    assert stepper.expected(PROMPT, 5)[1:] == stepper.drain(again)


def test_cancelling_a_drained_generation_changes_nothing(stepper: Stepper) -> None:
    """The finish reason stays what it was."""
    request = stepper.start(PROMPT, 2)
    stepper.run()
    stepper.drain(request)
    stepper.state.cancel(request)

    assert stepper.state.finish(request) == LENGTH


@pytest.mark.parametrize("how", ["cancel", "drop_request", "drop_context", "drop_owner"])
def test_pages_in_flight_stay_until_the_batch_lands(stepper: Stepper, how: str) -> None:
    """However a request ends while its row is computed, no page is free before `complete`."""
    state = stepper.state
    context = stepper.context(PROMPT)
    request = state.generate(context, GenerateParams(max_tokens=9))
    stepper.depart()
    num_free = state.contexts.pool.num_free

    calls: dict[str, Callable[[], None]] = {
        "cancel": lambda: (state.cancel(request), state.truncate(context, 0))[1],
        "drop_request": lambda: (state.drop_request(request), state.drop_context(context))[1],
        "drop_context": lambda: state.drop_context(context),
        "drop_owner": lambda: state.drop_owner("one"),
    }
    calls[how]()
    assert num_free == state.contexts.pool.num_free

    delivery = stepper.land()

    assert (64, []) == (state.contexts.pool.num_free, delivery.ready)
    assert stepper.depart() is None


def test_a_context_cancelled_in_flight_can_be_used_at_once(stepper: Stepper) -> None:
    """Fork, truncate and generate between cancel and landing give the tokens from scratch."""
    state = stepper.state
    context = stepper.context(PROMPT)
    request = state.generate(context, GenerateParams(max_tokens=9))
    stepper.step()
    stepper.depart()
    state.cancel(request)
    child = state.fork(context)
    state.truncate(context, 5)
    state.append(context, [77])
    requests = [state.generate(each, GenerateParams(max_tokens=5)) for each in (context, child)]
    stepper.land()
    stepper.run()

    assert stepper.expected([*PROMPT[:5], 77], 5) == stepper.drain(requests[0])
    assert stepper.expected(PROMPT, 5) == stepper.drain(requests[1])


def limited(max_tokens: int) -> GenerateParams:
    """Nothing but a limit."""
    return GenerateParams(max_tokens=max_tokens)


INVALID = "invalid-argument"


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        (lambda s, c: s.generate(s.create_context("one"), limited(1)), INVALID, "empty"),
        (lambda s, c: s.append(c, [512]), INVALID, "token 512 is outside"),
        (lambda s, c: s.append(c, [-1]), INVALID, "token -1 is outside"),
        (lambda s, c: s.append(c, [1] * 40), INVALID, "would have 46 tokens"),
        (lambda s, c: s.truncate(c, 7), INVALID, r"outside \[0, 6\]"),
        (lambda s, c: s.truncate(c, -1), INVALID, r"outside \[0, 6\]"),
        (lambda s, c: s.tokens(c, 3, 2), INVALID, r"\[3, 2\)"),
        (lambda s, c: s.length(99), "not-found", "context 99"),
        (lambda s, c: s.take(99), "not-found", "request 99"),
        (lambda s, c: s.generate(c, limited(0)), INVALID, "max_tokens"),
        (lambda s, c: s.generate(c, GenerateParams(stop_tokens=(600,))), INVALID, "600"),
        (lambda s, c: s.generate(c, limited(40)), "exhausted", "need 10 pages.*has 8"),
        (lambda s, c: s.owners.add("one"), "already-exists", "'one'"),
    ],
)
def test_refusals(call: Callable[[SchedulerState, int], object], code: str, words: str) -> None:
    """Each refusal has its code and names the numbers, and changes nothing."""
    stepper = Stepper(num_pages=8, vocabulary=Vocabulary(max_context=40))
    context = stepper.context(PROMPT)
    with pytest.raises(PieError, match=words) as caught:
        call(stepper.state, context)

    assert caught.value.code == code
    stepper.state.check()
    assert stepper.state.length(context) == 6


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (GenerateParams(chunk_tokens=-1), "chunk_tokens"),
        (GenerateParams(Sampling(temperature=-0.1)), "temperature"),
        (GenerateParams(Sampling(temperature=float("nan"))), "temperature"),
        (GenerateParams(Sampling(temperature=float("inf"))), "temperature"),
        (GenerateParams(Sampling(top_k=-1)), "top_k"),
        (GenerateParams(Sampling(top_p=0)), "top_p"),
        (GenerateParams(Sampling(top_p=float("nan"))), "top_p"),
        (GenerateParams(Sampling(min_p=1.1)), "min_p"),
        (GenerateParams(Sampling(seed=1 << 64)), "seed"),
        (GenerateParams(Sampling(seed=-1)), "seed"),
        (GenerateParams(Sampling(logprobs=21)), "logprobs"),
        (GenerateParams(Sampling(logprobs=-1)), "logprobs"),
        (GenerateParams(adjusted(repetition_penalty=0)), "repetition_penalty"),
        (GenerateParams(adjusted(repetition_penalty=float("nan"))), "repetition_penalty"),
        (GenerateParams(adjusted(presence_penalty=-2.5)), "presence_penalty"),
        (GenerateParams(adjusted(frequency_penalty=float("inf"))), "frequency_penalty"),
        (GenerateParams(adjusted(logit_bias={1: 101.0})), "logit_bias"),
        (GenerateParams(adjusted(logit_bias=dict.fromkeys(range(1025), 1.0))), "logit_bias"),
        (GenerateParams(stop_strings=("",)), "stop_strings"),
        (GenerateParams(stop_strings=("x" * 2000, "y" * 49)), "stop_strings"),
        (GenerateParams(stop_strings=("x",) * 65), "stop_strings"),
    ],
)
def test_options_out_of_range_are_named(params: GenerateParams, words: str) -> None:
    """The message begins with the option."""
    with pytest.raises(PieError, match=words) as caught:
        params.check()

    assert caught.value.code == "invalid-argument"


def test_sampling_draws_count_from_the_generation_start(stepper: Stepper) -> None:
    """Draws are numbered by token, whatever else shares the batch."""
    sampling = Sampling(temperature=0.8, seed=5)
    params = GenerateParams(sampling, max_tokens=7)
    requests = [stepper.state.generate(stepper.context(PROMPT), params)]
    stepper.step()
    stepper.start([1, 2, 3], 20)
    requests.append(stepper.state.generate(stepper.context(PROMPT), params))
    stepper.run()

    expected = expected_tokens(PROMPT, 7, sampling)
    assert [expected, expected] == [stepper.drain(request) for request in requests]


@pytest.mark.parametrize(
    "answer", ["too few", "wrong step", "no sample", "unasked logprobs", "too many logprobs"]
)
def test_a_misaligned_answer_is_the_backends_fault(stepper: Stepper, answer: str) -> None:
    """A result that does not match the rows in flight is refused as a whole."""
    stepper.start(PROMPT, 3)
    batch = stepper.depart()
    assert batch is not None
    results = {
        "too few": BatchResult(batch.step, []),
        "wrong step": BatchResult(batch.step + 1, [[1]]),
        "no sample": BatchResult(batch.step, [[]]),
        "unasked logprobs": BatchResult(batch.step, [[1]], [[Logprobs(-1.0)]]),
        "too many logprobs": BatchResult(batch.step, [[1]], [[None, None]]),
    }

    with pytest.raises(BackendError):
        stepper.state.complete(results[answer])


def test_usage_counts_and_times(stepper: Stepper) -> None:
    """Prompt, generated and queued time are those of the request; an owner's add up."""
    request = stepper.start(PROMPT, 3)
    stepper.now_s = 2.5
    assert stepper.state.usage(request).queued_s == 2.5
    stepper.run()
    stepper.now_s = 9.0

    usage = stepper.state.usage(request)
    owner = stepper.state.owners.find("one")

    assert (6, 0, 3, 2.5) == (
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.generated_tokens,
        usage.queued_s,
    )
    assert owner is not None
    assert (6, 3) == (owner.prompt_tokens, owner.generated_tokens)
