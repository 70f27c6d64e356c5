"""A burst on an engine computes what as many batches compute, whose rows were planned anew."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import chain

import pytest

from pie_backend.base import BackendError
from pie_backend.batch import Batch, BatchResult, Row, Sample, Sampling
from pie_backend.bursts import Bursts
from pie_backend.engine.engine import Engine
from support.checkpoints import MAX_CONTEXT, VOCAB_SIZE, Checkpoint, prompts
from support.processors import OWN

OpenEngine = Callable[..., Engine]

PAGE_SIZE = 16
NUM_PASSES = 40
GREEDY = Sampling()
SAMPLED = Sampling(temperature=0.9, seed=7, logprobs=2)


def tokens(count: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(VOCAB_SIZE), k=count)


def tables(lengths: list[int], num_shared: int = 0) -> list[list[int]]:
    """Pages for each row and all passes; the first ones are those of all rows."""
    ends = [num_shared + number * 20 for number in range(len(lengths) + 1)]
    shared = list(range(num_shared))
    return [
        [*shared, *range(first, first + -(-(length + NUM_PASSES) // PAGE_SIZE) - num_shared)]
        for first, length in zip(ends, lengths, strict=False)
    ]


class Rows:
    """Contexts, their prompts computed but for the last token of each."""

    def __init__(self, engine: Engine, contexts: list[list[int]], pages: list[list[int]]) -> None:
        for context, table in zip(contexts, pages, strict=True):
            if context[:-1]:
                engine.execute(Batch(0, [Row(context[:-1], 0, table)]))
        self.engine = engine
        self.contexts = contexts
        self.pages = pages

    def next(self, sampling: Sampling, draw: int = 0) -> list[Row]:
        return [
            Row(context[-1:], len(context) - 1, table, [Sample(0, sampling, draw)])
            for context, table in zip(self.contexts, self.pages, strict=True)
        ]

    def burst(self, sampling: Sampling, passes: int = NUM_PASSES) -> BatchResult:
        return Bursts(self.engine).execute(Batch(1, self.next(sampling), passes=passes))

    def one_by_one(self, sampling: Sampling) -> BatchResult:
        results = []
        for draw in range(NUM_PASSES):
            results.append(self.engine.execute(Batch(1, self.next(sampling, draw))))
            self.contexts = [
                [*context, *drawn]
                for context, drawn in zip(self.contexts, results[-1].tokens, strict=True)
            ]
        answers = [result.tokens for result in results], [result.logprobs for result in results]
        tokens, logprobs = (
            [list(chain.from_iterable(row)) for row in zip(*passes, strict=True)]
            for passes in answers
        )
        return BatchResult(1, tokens, logprobs)


@pytest.fixture(params=["float32", "bfloat16", "int8"])
def engines(
    request: pytest.FixtureRequest, processor: str, qwen3: Checkpoint, open_engine: OpenEngine
) -> tuple[Engine, Engine]:
    """Two of the same; in bfloat16 with kernels of our own, where there are any."""
    if request.param == "float32" and processor != OWN:
        pytest.skip("torch computes it on every processor")
    changes = {"dtype": request.param}
    if request.param == "int8":
        changes = {"dtype": "bfloat16", "weights": "int8"}
    try:
        first, second = (open_engine(qwen3, **changes) for _ in range(2))
    except BackendError as why:
        pytest.skip(str(why))
    return first, second


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize(
    "lengths",
    [[1], [16], [17, 33, 30, 1, 15, 16, 31, 32, 47]],
    ids=["one row", "at the end of a page", "rows at every place of a page"],
)
def test_a_burst_draws_what_single_passes_draw(
    engines: tuple[Engine, Engine], lengths: list[int], sampling: Sampling
) -> None:
    contexts = [tokens(length, seed) for seed, length in enumerate(lengths)]
    pages = tables(lengths)
    expected, found = Rows(engines[0], contexts, pages), Rows(engines[1], contexts, pages)
    assert expected.one_by_one(sampling) == found.burst(sampling)


def test_rows_that_begin_with_the_same_pages(engines: tuple[Engine, Engine]) -> None:
    """So many of them that kernels attend to those pages together."""
    common = tokens(5 * PAGE_SIZE)
    contexts = [common + tokens(number + 1, number) for number in range(16)]
    pages = tables([len(context) for context in contexts], num_shared=5)
    expected, found = Rows(engines[0], contexts, pages), Rows(engines[1], contexts, pages)
    assert expected.one_by_one(GREEDY) == found.burst(GREEDY)


def test_what_follows_a_burst_sees_what_the_burst_has_computed(
    engines: tuple[Engine, Engine],
) -> None:
    contexts = [tokens(20, 1), tokens(9, 2)]
    pages = [list(range(10)), list(range(10, 20))]
    expected, found = Rows(engines[0], contexts, pages), Rows(engines[1], contexts, pages)
    made = expected.one_by_one(SAMPLED).tokens
    assert made == found.burst(SAMPLED).tokens
    for drawn, place in zip(made, (0, 1), strict=True):
        found.contexts[place] = [*contexts[place], *drawn]
    after = [rows.engine.execute(Batch(2, rows.next(SAMPLED, 99))) for rows in (expected, found)]
    assert after[0] == after[1]


def test_its_tokens_are_those_of_transformers(qwen3: Checkpoint, open_engine: OpenEngine) -> None:
    prompt = prompts(16)[-1]
    pages = [list(range(20))]
    rows = Rows(open_engine(qwen3), [prompt], pages)
    assert [qwen3.generate(prompt, NUM_PASSES)] == rows.burst(GREEDY).tokens


def test_rows_are_planned_once_for_a_burst(
    qwen3: Checkpoint, open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(qwen3, dtype="bfloat16")
    if not engine.info.kernels.startswith("native"):
        pytest.skip(engine.info.kernels)
    rows = Rows(engine, [tokens(20), tokens(31)], tables([20, 31]))
    assert engine._attention is not None
    plan, planned = engine._attention.plan, []
    monkeypatch.setattr(engine._attention, "plan", lambda flat: planned.append(flat) or plan(flat))
    rows.burst(GREEDY)
    assert 1 == len(planned)


def test_a_batch_in_between_is_not_taken_for_a_pass(engines: tuple[Engine, Engine]) -> None:
    """Whoever asks for a pass of another batch than the last one gets that pass."""
    contexts = [tokens(20, 1), tokens(9, 2)]
    pages = [list(range(10)), list(range(10, 20))]
    expected, found = Rows(engines[0], contexts, pages), Rows(engines[1], contexts, pages)
    made = expected.one_by_one(GREEDY).tokens
    batch = Batch(1, found.next(GREEDY))
    engine = found.engine
    engine.execute(batch)
    engine.execute(Batch(2, [Row([5], 0, [50], [Sample(0, GREEDY)])]))
    drawn = [[row[0]] for row in made]
    for number in range(1, 4):
        drawn = engine.follow(batch, number, drawn).tokens
        assert drawn == [[row[number]] for row in made]


@pytest.mark.parametrize("room", ["pages", "context"])
def test_a_burst_without_room_is_refused(engines: tuple[Engine, Engine], room: str) -> None:
    """Never written where nothing belongs to the row."""
    length = MAX_CONTEXT - 8 if room == "context" else 24
    pages = [list(range(20 if room == "context" else 2))]
    rows = Rows(engines[0], [tokens(length)], pages)
    with pytest.raises(BackendError, match=r"pages cannot hold|covers positions"):
        rows.burst(GREEDY)
