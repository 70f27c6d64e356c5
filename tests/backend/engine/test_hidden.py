"""Hidden tokens in float32, against transformers with the same mask in one pass."""

from __future__ import annotations

from array import array
from collections.abc import Callable

import pytest
import torch

from pie_backend.base import BackendError
from pie_backend.batch import Batch, Probe, Row, Sample, Sampling
from pie_backend.engine.engine import Engine
from pie_backend.engine.reach import reach_of
from support.checkpoints import Checkpoint, prompts

OpenEngine = Callable[..., Engine]
Ranges = list[tuple[int, int]]

# Each is (tokens, what they do not see), one after another; the engine's pages hold 16.
CASES: dict[str, list[tuple[int, Ranges]]] = {
    "whole pages": [(64, []), (20, [(16, 48)])],
    "ragged edges": [(64, []), (20, [(5, 51)])],
    "within one page": [(64, []), (20, [(18, 25), (27, 30)])],
    "many ranges": [(70, []), (14, [(0, 3), (7, 16), (20, 48), (60, 66)])],
    "all but the last": [(48, []), (1, [(0, 48)]), (3, [(0, 48)])],
    "shown again": [(40, []), (10, [(3, 35)]), (10, []), (10, [(41, 45)])],
    "hidden from themselves": [(10, []), (30, [(4, 24)]), (4, [(4, 24)])],
    "from the first": [(20, [(0, 20)]), (10, [(2, 18)])],
}


def chunks(case: list[tuple[int, Ranges]], size: int) -> list[tuple[int, int, Ranges]]:
    """Rows as (start, end, hidden), cut also where what is hidden changes."""
    cut, start = [], 0
    for num_tokens, hidden in case:
        end = start + num_tokens
        for begin in range(start, end, size):
            stop = min(begin + size, end)
            cut.append((begin, stop, [(a, min(b, stop)) for a, b in hidden if a < stop]))
        start = end
    return cut


@torch.inference_mode()
def reference(
    checkpoint: Checkpoint, tokens: list[int], rows: list[tuple[int, int, Ranges]]
) -> torch.Tensor:
    """Logits after the last token."""
    allowed = torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril()
    for start, end, hidden in rows:
        for a, b in hidden:
            allowed[start:end, a:b] = False
    allowed.fill_diagonal_(True)
    mask = torch.zeros(1, 1, *allowed.shape).masked_fill(~allowed, -torch.inf)
    logits: torch.Tensor = checkpoint.model(torch.tensor([tokens]), attention_mask=mask).logits
    return logits[0, -1]


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 13, 1000])
@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_the_same_mask(
    qwen3: Checkpoint, open_engine: OpenEngine, name: str, size: int
) -> None:
    """However the work is cut into rows, and with other rows in the batch."""
    engine = open_engine(qwen3, kv_pages=32)
    rows = chunks(CASES[name], size)
    tokens = prompts(3, seed=len(name), longest=150)[2][: rows[-1][1]]
    assert len(tokens) == rows[-1][1]
    pages, others = [7, 3, 9, 1, 12, 5], list(range(20, 28))
    for step, (start, end, hidden) in enumerate(rows):
        asked = [Probe(end - start - 1, "logits")] if end == len(tokens) else []
        row = Row(tokens[start:end], start, pages, probes=asked, hidden=hidden)
        beside = Row(tokens[step : step + 1], step, others)
        result = engine.execute(Batch(step, [beside, row, *_decoding(step)]))
    logits = torch.tensor(array("f", result.probes[1][0].values))
    expected = reference(qwen3, tokens, rows)
    assert int(expected.argmax()) == int(logits.argmax())
    torch.testing.assert_close(logits, expected, atol=2e-4, rtol=1e-3)


def _decoding(step: int) -> list[Row]:
    """Enough rows of one token that decoding takes its way by products."""
    return [Row([1 + step], step % 16, [28 + number]) for number in range(3)]


def test_a_hidden_page_is_not_read(qwen3: Checkpoint, open_engine: OpenEngine) -> None:
    """Whatever lies in it, the draw is the same."""
    drawn = []
    for poison in (0.0, torch.nan):
        engine = open_engine(qwen3, kv_pages=8)
        tokens = prompts(3)[2][:50]
        engine.execute(Batch(0, [Row(tokens[:48], 0, [1, 2, 3, 4])]))
        assert engine._cache is not None
        with torch.inference_mode():
            engine._cache._pool[:, :, [1, 3]] = poison
        row = Row(
            tokens[48:], 48, [1, 2, 3, 4], [Sample(1, Sampling())], hidden=[(0, 16), (32, 48)]
        )
        drawn.append(engine.execute(Batch(1, [row])).tokens)
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize(
    ("start", "num_tokens", "hidden", "pages", "place", "edges"),
    [
        (40, 1, [], "abcdef", 40, []),
        (40, 1, [(0, 40)], "f", 0, []),
        (40, 1, [(8, 16)], "acdef", 32, []),
        (40, 1, [(3, 21)], "acdef", 32, [(3, 8), (8, 13)]),
        (40, 3, [(0, 8), (16, 26), (30, 31)], "bdef", 24, [(8, 10), (14, 15)]),
        (12, 20, [(4, 30)], "abcd", 12, [(4, 30)]),
    ],
)
def test_what_a_row_reads(
    start: int, num_tokens: int, hidden: Ranges, pages: str, place: int, edges: Ranges
) -> None:
    """Pages of eight, named by letters; those that hold the row's own tokens always stay."""
    row = Row([1] * num_tokens, start, [ord(letter) for letter in "abcdef"], hidden=hidden)
    reach = reach_of(row, 8)
    assert (pages, place) == ("".join(map(chr, reach.pages)), reach.start)
    assert edges == reach.hidden


@pytest.mark.parametrize("hidden", [[(3, 2)], [(4, 6), (2, 3)], [(-1, 2)], [(0, 99)]])
def test_ranges_out_of_order_are_refused(
    qwen3: Checkpoint, open_engine: OpenEngine, hidden: Ranges
) -> None:
    """By row and reason."""
    with pytest.raises(BackendError, match=r"row 0: hides .* not ranges in order"):
        open_engine(qwen3).execute(Batch(0, [Row([1] * 8, 0, [0], hidden=hidden)]))
