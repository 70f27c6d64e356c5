"""Speculation through the scheduler: the tokens of plain decoding, in fewer batches."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pie_backend.batch import Adjustment, Sampling
from pie_backend.dummy import Vocabulary, expected_tokens
from pie_daemon.errors import PieError
from pie_daemon.scheduler.config import SchedulerConfig
from pie_daemon.scheduler.drafts import DraftParams
from pie_daemon.scheduler.owners import TokenBudget
from pie_daemon.scheduler.params import GenerateParams
from pie_daemon.scheduler.request import BUDGET, CANCELLED, Chunk, Finish, Usage
from pie_daemon.scheduler.service import Scheduler
from support.adapter_files import write_adapter_files
from support.purse import Purse
from support.stepping import Stepper, letters

# Text that goes round in fours, more or less.
ROUND = Vocabulary(size=64, lag=4, eos_period=40)
PROMPT = [11, 12, 13, 14, 11, 12, 13, 14, 11]
DRAFTS = DraftParams(max_draft=6, min_match=1, max_match=4)


def adjusted(**changes: Any) -> Sampling:
    return Sampling(adjustment=Adjustment(**changes))


def stepper(**options: Any) -> Stepper:
    return Stepper(vocabulary=ROUND, **options)


def outcome(
    params: GenerateParams, budget: TokenBudget | None = None, **options: Any
) -> tuple[list[Chunk], Finish | None, list[int], int]:
    """Chunks taken after each batch, the finish, the context, and how many batches it took."""
    driven = stepper(**options)
    driven.state.owners.add("one", budget=budget)
    context = driven.context(PROMPT)
    request = driven.state.generate(context, params)
    chunks = []
    while driven.step() is not None:
        while (chunk := driven.state.take(request)) is not None:
            chunks.append(chunk)
    finish = driven.state.finish(request)
    length = driven.state.length(context)
    held = driven.state.contexts.get(context)
    assert 0 == held.num_drafted
    assert len(held.journal) - 1 == held.num_computed
    return chunks, finish, driven.state.tokens(context, 0, length), len(driven.batches)


def whole(chunks: list[Chunk]) -> tuple[list[int], str, list[Any]]:
    return (
        [token for chunk in chunks for token in chunk.tokens],
        "".join(chunk.text for chunk in chunks),
        [one for chunk in chunks for one in chunk.logprobs],
    )


@pytest.mark.parametrize(
    "params",
    [
        GenerateParams(max_tokens=60, ignore_eos=True),
        GenerateParams(max_tokens=120),
        GenerateParams(Sampling(temperature=1.0, seed=5), max_tokens=60, ignore_eos=True),
        GenerateParams(Sampling(temperature=0.7, seed=6, logprobs=2), max_tokens=120),
        GenerateParams(adjusted(repetition_penalty=1.2), max_tokens=50, ignore_eos=True),
        GenerateParams(adjusted(frequency_penalty=0.3, presence_penalty=-1), max_tokens=50),
        GenerateParams(adjusted(logit_bias={3: -100.0}), max_tokens=50),
        GenerateParams(stop_tokens=(14,), max_tokens=90),
        GenerateParams(stop_strings=("no", "mn"), max_tokens=90, ignore_eos=True),
        GenerateParams(stop_strings=("nol", "mnolmn"), max_tokens=90, chunk_tokens=0),
        GenerateParams(max_tokens=60, chunk_tokens=7, ignore_eos=True),
        GenerateParams(max_tokens=None),
    ],
    ids=lambda params: str(params.sampling.adjustment or params.stop_strings or params.max_tokens),
)
def test_the_outcome_is_that_of_plain_decoding(params: GenerateParams) -> None:
    """Tokens, text, log probabilities, finish and context; the batches are fewer."""
    plain, plain_finish, plain_context, num_plain = outcome(params)
    chunks, finish, context, num_batches = outcome(replace(params, drafts=DRAFTS))
    assert whole(plain) == whole(chunks)
    assert (plain_finish, plain_context) == (finish, context)
    assert num_batches < num_plain or num_plain < 12


@pytest.mark.parametrize("max_tokens", range(1, 14))
@pytest.mark.parametrize("page_size", [1, 3, 16])
def test_drafts_end_where_the_generation_must(max_tokens: int, page_size: int) -> None:
    """At max_tokens, at the border of every page, in a pool that holds just this."""
    num_pages = -(-(len(PROMPT) + max_tokens - 1) // page_size)
    params = GenerateParams(max_tokens=max_tokens, ignore_eos=True, drafts=DRAFTS)
    chunks, _, context, _ = outcome(params, num_pages=num_pages, page_size=page_size)
    expected = expected_tokens(PROMPT, max_tokens, vocabulary=replace(ROUND, eos_period=None))
    assert len(expected) == len(whole(chunks)[0])
    assert outcome(replace(params, drafts=None))[2] == context


@pytest.mark.parametrize("num_tokens", range(1, 12))
def test_a_budget_ends_within_accepted_drafts(num_tokens: int) -> None:
    """Just as it does between plain tokens."""
    params = GenerateParams(max_tokens=40, ignore_eos=True)
    plain, finish, context, _ = outcome(params, Purse(num_tokens))
    chunks, *rest, _ = outcome(replace(params, drafts=DRAFTS), Purse(num_tokens))
    assert BUDGET == finish
    assert num_tokens == len(whole(chunks)[0])
    assert (whole(plain), [finish, context]) == (whole(chunks), rest)


@pytest.mark.parametrize("max_batch_tokens", [1, 2, 5, 9])
def test_drafts_take_what_prompts_leave(max_batch_tokens: int) -> None:
    """No batch has more tokens than allowed, and decoding rows never lose their place."""
    driven = stepper(config=SchedulerConfig(max_batch_tokens=max_batch_tokens))
    params = GenerateParams(max_tokens=20, ignore_eos=True, drafts=DRAFTS)
    prompts = [PROMPT, PROMPT[1:], [*PROMPT, 12, 13]]
    requests = [driven.state.generate(driven.context(prompt), params) for prompt in prompts]
    driven.run()
    assert max(sum(len(row.tokens) for row in one.rows) for one in driven.batches) == (
        max_batch_tokens
    )
    assert [expected_tokens(prompt, 20, vocabulary=ROUND) for prompt in prompts] == [
        driven.drain(request) for request in requests
    ]


def test_rows_share_the_guesses_of_a_batch() -> None:
    """The setting bounds them all together; 0 turns speculation off."""
    for allowed, each in ((7, 3), (1, 0), (0, 0)):
        driven = stepper(config=SchedulerConfig(max_draft_tokens=allowed))
        params = GenerateParams(max_tokens=20, ignore_eos=True, drafts=DRAFTS)
        for last in (1, 2):
            driven.state.generate(driven.context([*PROMPT[:-1], last, *PROMPT]), params)
        driven.run()
        lengths = [len(row.tokens) - 1 for batch in driven.batches[1:] for row in batch.rows]
        # The last one of two rows has them all.
        assert each <= max(lengths) <= allowed
        both = [batch for batch in driven.batches[1:] if len(batch.rows) == 2]
        assert each == max(len(row.tokens) - 1 for batch in both for row in batch.rows)


def test_usage_and_counters_tell_what_guesses_were_worth() -> None:
    """Each token beyond one per batch was an accepted guess."""
    driven = stepper()
    params = GenerateParams(max_tokens=60, ignore_eos=True, drafts=DRAFTS)
    request = driven.state.generate(driven.context(PROMPT), params)
    driven.run()
    usage = driven.state.usage(request)
    assert 60 == usage.generated_tokens
    assert 60 - len(driven.batches) == usage.accepted_tokens
    drafted = sum(len(row.tokens) - 1 for one in driven.batches[1:] for row in one.rows)
    first = len(driven.batches[0].rows[0].tokens) - len(PROMPT)
    assert drafted + first == usage.drafted_tokens > usage.accepted_tokens
    counters = driven.state.counters
    assert usage.accepted_tokens / usage.drafted_tokens == counters.draft_acceptance
    plain = driven.start(PROMPT, 3)
    assert Usage(9, 0, 0, 0, 0, 0.0) == driven.state.usage(plain)


def test_pages_of_rejected_guesses_are_reserved_again() -> None:
    """Other requests never get what a running one may still need."""
    driven = stepper(num_pages=26, page_size=2)
    params = GenerateParams(max_tokens=20, ignore_eos=True, drafts=DRAFTS)
    request = driven.state.generate(driven.context(PROMPT), params)
    waiting = driven.state.generate(driven.context(PROMPT[:3]), params)
    while driven.step() is not None:
        for one in driven.state.running.values():
            held = one.num_reserved + len(one.context.pages)
            assert driven.state.contexts.num_pages_for(one.worst_length) == held
    for prompt, one in ((PROMPT, request), (PROMPT[:3], waiting)):
        assert expected_tokens(prompt, 20, vocabulary=ROUND) == driven.drain(one)


def test_guesses_are_never_published() -> None:
    """Another context finds whole pages of what was drawn, and of nothing else."""
    driven = stepper(page_size=2)
    params = GenerateParams(max_tokens=30, ignore_eos=True, drafts=DRAFTS)
    context = driven.context(PROMPT)
    request = driven.state.generate(context, params)
    while driven.step() is not None:
        held = driven.state.contexts.get(context)
        journal, pool = held.journal, driven.state.contexts.pool
        for index, page in enumerate(held.pages):
            is_whole = (index + 1) * 2 <= len(journal) - 1
            assert is_whole == (pool.key_of(page) is not None)
    tokens = [*PROMPT, *driven.drain(request)]
    again = driven.state.generate(driven.context(tokens), replace(params, max_tokens=5))
    driven.run()
    assert expected_tokens(tokens, 5, vocabulary=ROUND) == driven.drain(again)
    assert driven.state.usage(again).cached_tokens >= len(tokens) - 3


@pytest.mark.parametrize("how", ["cancel", "drop_request", "drop_owner", "fail"])
def test_a_generation_can_end_while_guesses_are_in_flight(how: str) -> None:
    """Its pages come back when the batch has landed, those of its drafts too."""
    for num_steps in range(1, 9):
        driven = stepper()
        params = GenerateParams(max_tokens=60, ignore_eos=True, drafts=DRAFTS)
        request = driven.state.generate(driven.context(PROMPT), params)
        for _ in range(num_steps):
            driven.step()
        driven.state.take(request)
        batch = driven.depart()
        assert batch is not None
        if how == "fail":
            driven.state.fail(PieError("internal", "gone"))
        else:
            getattr(driven.state, how)("one" if how == "drop_owner" else request)
        driven.state.check()
        if how != "fail":
            driven.land()
        if how == "cancel":
            assert CANCELLED == driven.state.finish(request)
        if how != "drop_owner":
            driven.state.drop_owner("one")
        driven.state.check()
        assert driven.state.contexts.pool.num_free == 64


def test_forks_guess_apart() -> None:
    """A shared page is copied before drafts are written into it."""
    driven = stepper()
    params = GenerateParams(max_tokens=24, ignore_eos=True, drafts=DRAFTS)
    context = driven.context(PROMPT)
    driven.state.flush(context)
    driven.run()
    requests = []
    for seed in range(3):
        sampling = Sampling(temperature=1.0, seed=seed)
        fork = driven.state.fork(context)
        requests.append(driven.state.generate(fork, replace(params, sampling=sampling)))
    driven.run()
    for seed, request in enumerate(requests):
        expected = expected_tokens(PROMPT, 24, Sampling(temperature=1.0, seed=seed), ROUND)
        assert expected == driven.drain(request)


def test_guesses_are_computed_with_the_adapter_of_their_generation(tmp_path: Path) -> None:
    """Accepted ones are KV like any other; the dummy tells it by the adapter as well."""
    driven = stepper()
    files = write_adapter_files(tmp_path / "x", r=2)
    digest = driven.backend.load_adapter(str(files)).digest
    params = GenerateParams(max_tokens=40, ignore_eos=True, adapter=digest)
    drawn = []
    for drafts in (None, DRAFTS):
        # On a prompt that the model itself has computed: its last token is the adapter's.
        context = driven.context(PROMPT)
        driven.state.flush(context)
        driven.run()
        request = driven.state.generate(context, replace(params, drafts=drafts))
        driven.run()
        drawn.append(driven.drain(request))
    assert drawn[0] == drawn[1] != expected_tokens(PROMPT, 40, vocabulary=ROUND)
    assert driven.state.usage(request).accepted_tokens > 5


@pytest.mark.parametrize(
    ("drafts", "words"),
    [
        (DraftParams(max_draft=33), "max_draft"),
        (DraftParams(min_match=0), "min_match"),
        (DraftParams(min_match=3, max_match=2), "max_match"),
        (DraftParams(max_match=17), "max_match"),
    ],
)
def test_options_out_of_range_are_named(drafts: DraftParams, words: str) -> None:
    """Before anything is queued."""
    driven = stepper()
    with pytest.raises(PieError, match=words):
        driven.state.generate(driven.context(PROMPT), GenerateParams(drafts=drafts))


def test_the_service_reports_the_acceptance() -> None:
    """In its stats, beside the tokens drafted."""
    driven = stepper()
    service = Scheduler(driven.backend, letters)
    context = service.create_context("one")
    service.append(context, PROMPT)
    service.start()
    try:
        params = GenerateParams(max_tokens=40, ignore_eos=True, drafts=DRAFTS, chunk_tokens=0)
        done = threading.Event()
        request = service.generate(context, params, done.set)
        assert done.wait(20)
        assert service.usage(request).accepted_tokens > 0
        stats = service.stats()
        usage = service.usage(request)
        assert usage.drafted_tokens == stats.drafted_tokens
        assert usage.accepted_tokens / usage.drafted_tokens == stats.draft_acceptance
    finally:
        service.stop()


def test_every_seed_and_width_draws_the_same() -> None:
    """A sweep over what decides how long drafts are and where they match."""
    for seed, min_match, max_draft in itertools.product(range(12), (1, 2, 3), (1, 3, 32)):
        drafts = DraftParams(max_draft, min_match, min_match + 1)
        params = GenerateParams(
            Sampling(temperature=1.0, seed=seed), max_tokens=40, drafts=drafts, chunk_tokens=0
        )
        chunks, *_ = outcome(params)
        expected = expected_tokens(PROMPT, 40, params.sampling, ROUND)
        stop = expected.index(0) + 1 if 0 in expected else 40
        assert expected[:stop] == whole(chunks)[0]
