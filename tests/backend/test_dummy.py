"""The dummy backend: deterministic, and unforgiving about pages."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from pie_backend.base import AdapterError, BackendError
from pie_backend.batch import Adjustment, BackendConfig, Batch, Row, Sample, Sampling
from pie_backend.dummy import DummyBackend, Vocabulary, expected_tokens
from support.adapter_files import write_adapter_files
from support.driver import counted

GREEDY = Sampling()
DRAW = [Sample(0, GREEDY)]
CONFIG = BackendConfig(name="d", kind="dummy", path="", page_size=4, kv_pages=8)
PROMPT = [5, 6, 7, 8, 9]


def generate(
    backend: DummyBackend, pages: list[int], num_tokens: int, chunk: int = 99
) -> list[int]:
    """Prefills PROMPT in chunks, then decodes greedily."""
    tokens = list(PROMPT)
    start = 0
    for step in range(1000):
        end = min(len(tokens), start + chunk)
        samples = []
        if end == len(tokens):
            samples = [Sample(end - start - 1, GREEDY, len(tokens) - len(PROMPT))]
        row = Row(tokens[start:end], start, pages, samples)
        (drawn,) = backend.execute(Batch(step, [row])).tokens
        start = end
        tokens += drawn
        if len(tokens) == len(PROMPT) + num_tokens:
            return tokens[len(PROMPT) :]
    raise AssertionError("it never ends")


@pytest.mark.parametrize("chunk", [1, 2, 3, 99])
@pytest.mark.parametrize("pages", [[0, 1, 2], [7, 2, 5]])
def test_tokens_do_not_depend_on_pages_or_chunks(pages: list[int], chunk: int) -> None:
    """Any page table and any chunking give the tokens that the reference gives."""
    tokens = generate(DummyBackend(CONFIG), pages, 6, chunk)

    assert expected_tokens(PROMPT, 6) == tokens


def test_no_token_is_an_end_unless_wanted() -> None:
    """The default never draws an eos token; with a period it does, about that often."""
    never = expected_tokens(PROMPT, 300, vocabulary=Vocabulary(size=8, eos_tokens=(0, 7)))
    often = expected_tokens(PROMPT, 300, vocabulary=Vocabulary(eos_period=10))

    assert set(range(1, 7)) == set(never)
    assert 10 < often.count(0) < 60


def test_seed_and_draw_matter_only_when_sampling() -> None:
    """Greedy ignores the seed; sampled tokens depend on it."""
    greedy = [expected_tokens(PROMPT, 8, Sampling(seed=seed)) for seed in (1, 2)]
    sampled = [expected_tokens(PROMPT, 8, Sampling(1.0, seed=seed)) for seed in (1, 1, 2)]

    assert greedy[0] == greedy[1]
    assert sampled[0] == sampled[1] != sampled[2]


def test_a_copy_is_done_before_the_pass() -> None:
    """A row continues on a copied page as on the original, which keeps its own tokens."""
    backend = DummyBackend(CONFIG)
    backend.execute(Batch(0, [Row([1, 2], 0, [0])]))

    rows = [Row([3], 2, [1], DRAW), Row([4], 2, [0], DRAW)]
    result = backend.execute(Batch(1, rows, copies=[(0, 1)]))

    assert [expected_tokens([1, 2, last], 1) for last in (3, 4)] == result.tokens


def test_what_a_token_saw_stays_in_its_mark() -> None:
    """A later row that sees everything still shows it; another history gives other tokens."""
    tokens, hidden = [1, 2, 3, 4, 5, 6], [(), (), (), ((0, 2),), ((0, 2),), ()]
    backend = DummyBackend(CONFIG)
    rows = [
        Row([1, 2, 3], 0, [0, 1]),
        Row([4, 5], 3, [0, 1], hidden=[(0, 2)]),
        Row([6], 5, [0, 1], DRAW),
    ]
    (drawn,) = [backend.execute(Batch(step, [row])).tokens[0] for step, row in enumerate(rows)][2:]

    assert expected_tokens(tokens, 1, hidden=hidden) == drawn
    assert expected_tokens(tokens, 4) != expected_tokens(tokens, 4, hidden=hidden)


def test_a_wrong_page_changes_the_tokens() -> None:
    """Reading another context's page does not go unnoticed."""
    backend = DummyBackend(CONFIG)
    backend.execute(Batch(0, [Row([1, 2, 3, 4], 0, [0]), Row([5, 6, 7, 8], 0, [1])]))

    right = backend.execute(Batch(1, [Row([9], 4, [0, 2], DRAW)])).tokens
    wrong = backend.execute(Batch(2, [Row([9], 4, [1, 2], DRAW)])).tokens

    assert [expected_tokens([1, 2, 3, 4, 9], 1)] == right != wrong


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([Row([1], 0, [3]), Row([2], 0, [3])], "two rows write one page"),
        ([Row([1], 0, [3]), Row([1], 4, [3, 2])], "writes a page that another one reads"),
        ([Row([1], 2, [0])], "slots that nobody wrote"),
        ([Row([1] * 5, 0, [0])], "do not hold 5 tokens"),
        ([Row([512], 0, [0])], "outside the vocabulary"),
        ([Row([1], 0, [8])], "outside [0, 8)"),
        ([Row([], 0, [0])], "needs tokens"),
        ([Row([1], 0, [0], [Sample(1, GREEDY)])], "after none of the row's 1 tokens"),
    ],
)
def test_what_a_model_would_compute_wrongly_is_refused(rows: list[Row], message: str) -> None:
    """Each kind of broken batch has its own sentence."""
    with pytest.raises(BackendError) as caught:
        DummyBackend(CONFIG).execute(Batch(0, rows))

    assert message in str(caught.value)


def test_an_adapter_changes_every_token_that_follows(tmp_path: Path) -> None:
    """Of those tokens on that it computed, and no others; without it, they are as ever."""
    backend = DummyBackend(CONFIG)
    digest = backend.load_adapter(str(write_adapter_files(tmp_path))).digest
    first, second = Row([1, 2, 3], 0, [0]), Row([4], 3, [0], [Sample(0, GREEDY)])
    drawn = []
    for computed, asking in product(
        *([row, replace(row, adapter=digest)] for row in (first, second))
    ):
        backend.execute(Batch(0, [computed]))
        drawn += backend.execute(Batch(1, [asking])).tokens

    adapters = [[None], [None, None, None, digest], [digest, digest, digest, None], [digest]]
    assert [expected_tokens([1, 2, 3, 4], 1, adapters=one) for one in adapters] == drawn
    assert len(set(map(tuple, drawn))) == 4


def test_penalties_count_tokens_whatever_computed_them(tmp_path: Path) -> None:
    """A token is the same token with an adapter."""
    backend = DummyBackend(CONFIG)
    digest = backend.load_adapter(str(write_adapter_files(tmp_path, r=2))).digest
    sampling = Sampling(adjustment=Adjustment(repetition_penalty=2.0))
    sample = Sample(2, sampling, seen=counted([1, 2, 3], []))
    backend.execute(Batch(0, [Row([1, 2, 3], 0, [0], [sample], adapter=digest)]))


def test_adapters_that_are_not_loaded_are_refused(tmp_path: Path) -> None:
    """As are those that have no room beside the others."""
    large = write_adapter_files(tmp_path / "large", num_floats=300)
    small = write_adapter_files(tmp_path / "small")
    backend = DummyBackend(replace(CONFIG, adapter_bytes=1500))
    digest = backend.load_adapter(str(large)).digest
    with pytest.raises(AdapterError, match="adapter_mb allows 1500") as refused:
        backend.load_adapter(str(write_adapter_files(tmp_path / "other", num_floats=301)))
    assert refused.value.no_room
    backend.load_adapter(str(small))
    backend.unload_adapter(digest)
    with pytest.raises(BackendError, match="not loaded"):
        backend.execute(Batch(0, [Row([1], 0, [0], adapter=digest)]))


def test_a_closed_backend_computes_nothing() -> None:
    """Closing twice is fine; executing afterwards is the backend's death."""
    backend = DummyBackend(CONFIG)
    backend.close()
    backend.close()

    with pytest.raises(BackendError, match="closed"):
        backend.execute(Batch(0, [Row([1], 0, [0])]))


def test_the_vocabulary_is_that_of_the_model_directory(tmp_path: Path) -> None:
    """Size, ends and context come from config.json; without the keys, the error names the file."""
    config = {"vocab_size": 40, "eos_token_id": [3, 4], "max_position_embeddings": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))

    info = DummyBackend(BackendConfig(name="d", path=str(tmp_path))).info

    assert (40, [3, 4], 64) == (info.vocab_size, info.eos_tokens, info.max_context)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BackendError, match=r"config\.json"):
        DummyBackend(BackendConfig(name="d", path=str(tmp_path)))


def test_samples_after_several_tokens_of_a_row() -> None:
    """Each is drawn as if its token were the row's last one."""
    row = Row([5, 6, 7], 0, [3], [Sample(0, GREEDY), Sample(2, Sampling(1.0, seed=4), 9)])

    (drawn,) = DummyBackend(CONFIG).execute(Batch(0, [row])).tokens

    alone = Row([5, 6, 7], 0, [3], [Sample(2, Sampling(1.0, seed=4), 9)])
    assert [
        *expected_tokens([5], 1),
        *DummyBackend(CONFIG).execute(Batch(0, [alone])).tokens[0],
    ] == drawn


def test_a_mask_decides_what_may_be_drawn() -> None:
    """Among the allowed tokens an end comes last."""
    for allowed in ({17}, {0}, {0, 400}):
        mask = bytearray(64)
        for token in allowed:
            mask[token // 8] |= 1 << token % 8
        row = Row([5], 0, [3], [Sample(0, GREEDY, mask=bytes(mask))])

        assert [[max(allowed)]] == DummyBackend(CONFIG).execute(Batch(0, [row])).tokens


def test_pages_move_to_host_memory_and_back() -> None:
    """What was moved out and back goes on as if it had stayed, on another page."""
    backend = DummyBackend(msgspec.structs.replace(CONFIG, host_pages=2))
    assert 2 == backend.info.num_host_pages
    row = Row(PROMPT[:4], 0, [0])
    backend.execute(Batch(1, [row]))
    overwrite = Row([99, 98, 97, 96], 0, [0])
    backend.execute(Batch(2, [overwrite], evict=[(0, 1)]))
    last = Row(PROMPT[4:], 4, [5, 6], DRAW)

    (drawn,) = backend.execute(Batch(3, [last], restore=[(1, 5)])).tokens

    assert expected_tokens(PROMPT, 1) == drawn


def test_moves_are_checked() -> None:
    """A slot gives what it holds once; pages and slots must be there."""
    backend = DummyBackend(msgspec.structs.replace(CONFIG, host_pages=2))
    for moves, complaint in (
        ({"restore": [(0, 0)]}, "slot 0 holds nothing"),
        ({"evict": [(0, 2)]}, "slot is outside"),
        ({"evict": [(8, 0)]}, "page is outside"),
        ({"evict": [(0, 0)], "restore": [(0, 1), (0, 2)]}, "slot 0 holds nothing"),
    ):
        with pytest.raises(BackendError, match=complaint):
            backend.execute(Batch(1, [], **moves))
