"""KV pages in files, as the engine writes and reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pie_backend.base import BackendError
from pie_backend.batch import Batch, PageFile, Row, Sample, Sampling
from pie_backend.engine.engine import Engine
from support.checkpoints import Checkpoint, prompts

OpenEngine = Callable[..., Engine]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pages_come_back_as_they_were(
    qwen3: Checkpoint, open_engine: OpenEngine, tmp_path: Path, dtype: str
) -> None:
    """Written in two parts, read by another engine into other places, in another order."""
    prompt = prompts(3)[2][:65]
    path = str(tmp_path / "pages")
    first = open_engine(qwen3, kv_pages=8, dtype=dtype)
    row = Row(prompt[64:], 64, [4, 2, 7, 1, 0], [Sample(0, Sampling())])
    first.execute(Batch(0, [Row(prompt[:64], 0, row.pages)]))
    expected = first.execute(Batch(1, [row])).tokens
    for part in (PageFile(path, [4, 2, 7], 0), PageFile(path, [1], 3)):
        assert first.execute(Batch(2, [], store=part)).file_failure is None

    second = open_engine(qwen3, kv_pages=8, dtype=dtype)
    for part in (PageFile(path, [0, 1], 2), PageFile(path, [5, 3], 0)):
        assert second.execute(Batch(0, [], load=part)).file_failure is None
    moved = Row(row.tokens, row.start, [5, 3, 0, 1, 6], row.samples)
    assert expected == second.execute(Batch(1, [moved])).tokens


def test_a_file_that_fails_is_told_and_nothing_else(
    qwen3: Checkpoint, open_engine: OpenEngine, tmp_path: Path
) -> None:
    """The engine goes on; pages outside the pool are the scheduler's mistake."""
    engine = open_engine(qwen3, kv_pages=4)
    missing = PageFile(str(tmp_path / "none"), [0], 0)
    assert "none" in (engine.execute(Batch(0, [], load=missing)).file_failure or "")
    nowhere = PageFile(str(tmp_path / "no" / "folder"), [0], 0)
    assert "folder" in (engine.execute(Batch(1, [], store=nowhere)).file_failure or "")
    with pytest.raises(BackendError, match="outside the pool"):
        engine.execute(Batch(2, [], load=PageFile("x", [4], 0)))
