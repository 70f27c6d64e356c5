"""Whole passes in one call: what is behind the layers is asked as it is by torch's hand."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, c_int64, c_void_p, cast

import pytest
import torch

from pie_backend.batch import Batch, Row, Sample, Sampling
from pie_backend.engine.engine import Engine
from pie_backend.engine.ops.native.walk import NativeWalk
from pie_backend.engine.ragged import flatten
from support.checkpoints import VOCAB_SIZE, Checkpoint

Screen = Callable[[list[int], int, int], None]
_SCREEN = CFUNCTYPE(None, *[c_void_p] * 6, POINTER(c_int64), *[c_int64] * 3)


@pytest.fixture
def engine(processor: str, qwen3: Checkpoint, open_engine: Callable[..., Engine]) -> Engine:
    engine = open_engine(qwen3, dtype="bfloat16")
    if not engine.info.kernels.startswith("native"):
        pytest.skip(engine.info.kernels)
    return engine


def walk_behind(engine: Engine, num_rows: int) -> tuple[NativeWalk, list[int]]:
    """That many rows of one token, and the tokens to go on with."""
    rows = [Row([7 + number], 0, [number], [Sample(0, Sampling())]) for number in range(num_rows)]
    drawn = engine.execute(Batch(1, rows)).tokens
    planned = engine._planned
    assert planned is not None
    assert isinstance(planned.walk, NativeWalk)
    return planned.walk, [drawn[place][0] for place in planned.flat.order]


def screened_by(walk: NativeWalk, screen: Callable[..., None]) -> object:
    """As if the kernels had a screen; the result has to be kept as long."""
    callback = _SCREEN(screen)
    walk.ends.at.screen = cast(callback, c_void_p)
    return callback


@pytest.mark.parametrize("num_rows", [1, 300])
def test_a_screen_that_can_tell_is_believed(engine: Engine, num_rows: int) -> None:
    asked = []

    def screen(*arguments: object) -> None:
        *_, tokens, rows, num_out, num_in = arguments
        asked.append((rows, num_out, num_in))
        for row in range(rows):  # type: ignore[call-overload]
            tokens[row] = 100 + row  # type: ignore[index]

    walk, tokens = walk_behind(engine, num_rows)
    kept = screened_by(walk, screen)
    sizes = [min(256, num_rows - begin) for begin in range(0, num_rows, 256)]
    assert [100 + row for size in sizes for row in range(size)] == walk.likeliest(tokens)
    assert [(size, VOCAB_SIZE, 96) for size in sizes] == asked
    del kept


def test_all_logits_are_computed_where_it_cannot(engine: Engine) -> None:
    plain, tokens = walk_behind(engine, 3)
    expected = plain.likeliest(tokens)

    def screen(*arguments: object) -> None:
        *_, found, rows, _, _ = arguments
        for row in range(rows):  # type: ignore[call-overload]
            found[row] = -1 if row == 1 else 5  # type: ignore[index]

    walk, tokens = walk_behind(engine, 3)
    kept = screened_by(walk, screen)
    assert expected == walk.likeliest(tokens)
    del kept


@pytest.mark.parametrize("lengths", [[1], [3, 40, 17, 16, 15, 1, 90]])
def test_one_call_says_what_its_parts_say_one_by_one(engine: Engine, lengths: list[int]) -> None:
    pages = [list(range(8 * row, 8 * row + 8)) for row in range(len(lengths))]
    for length, table in zip(lengths, pages, strict=True):
        engine.execute(Batch(0, [Row([*range(5, 5 + length)], 0, table)]))
    rows = [Row([99], n, table) for n, table in zip(lengths, pages, strict=True)]
    decoder, attention = engine._decoder, engine._attention
    assert decoder is not None
    assert attention is not None
    with torch.inference_mode():
        flat = flatten(rows, engine.info.page_size)
        step = attention.plan(flat)
        walk = decoder.walk(flat, step)
        assert walk is not None
        expected = decoder.greedy(decoder.hidden_states(flat.tokens, flat.positions, step))
        assert expected == walk.likeliest(flat.tokens.tolist(), goes_on=False)
