"""Forward passes from a real component, on the dummy backend and on a real model."""

from __future__ import annotations

from collections.abc import Iterator
from math import log
from pathlib import Path
from typing import Any

import pytest

from inferlet import masks
from pie_backend.batch import BackendConfig
from pie_backend.create import create_backend
from pie_backend.dummy import expected_tokens
from support.adapter_files import write_adapter_files
from support.rig import Letters, Rig


class Bytes(Letters):
    """Any model has these tokens."""

    def token_bytes(self, token: int) -> bytes:
        return bytes([token % 256])


REFUSED = {
    "input_twice": "invalid-argument",
    "foreign_token": "invalid-argument",
    "positions": "invalid-argument",
    "short_row": "invalid-argument",
    "polarity": "invalid-argument",
    "mask_length": "invalid-argument",
    "unknown_option": "invalid-argument",
    "option_of_generate": "invalid-argument",
    "temperature": "invalid-argument",
    "index": "invalid-argument",
    "nothing_to_do": "invalid-argument",
    "huge_answer": "exhausted",
}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.close()


def untrue(value: Any, path: str = "") -> list[str]:
    """Where a result is not true."""
    if isinstance(value, dict):
        return [bad for key, one in value.items() for bad in untrue(one, f"{path}.{key}")]
    return [] if value is True else [f"{path}: {value!r}"]


@pytest.mark.slow
def test_every_function_about_passes_reaches_the_host(rig: Rig) -> None:
    """One program calls them all; its loops and trees equal what the engine does by itself."""
    rig.install("guest-passes")
    answer = rig.run("guest-passes")

    assert answer.pop("refused") == REFUSED
    assert untrue(answer) == []


@pytest.mark.slow
def test_a_pass_takes_an_adapter(rig: Rig) -> None:
    """The program may close its handle once the pass is submitted."""
    write_adapter_files(rig.adapters / "a", r=1)
    rig.install("guest-passes")
    assert {"same": True, "other": True} == rig.run("guest-passes", adapter="a")


@pytest.mark.slow
def test_the_beam_example_finds_the_likeliest(rig: Rig) -> None:
    """The widest beam begins with the greedy path on the dummy backend, whose every first choice is
    the likeliest; each step is one batch for all beams."""
    rig.install("beam")
    steps = rig.scheduler.stats().steps
    answer = rig.run("beam", prompt="hello", width=3, length=6)

    assert expected_tokens(list(b"hello"), 6) == answer["tokens"]
    assert pytest.approx(-6 * log(2)) == answer["score"]
    assert 1 + 6 == rig.scheduler.stats().steps - steps


@pytest.mark.slow
def test_a_real_model_draws_the_same_by_passes_trees_and_forks(tmp_path: Path) -> None:
    """In float32: loops of passes as `generate`, a tree in one masked pass as forks."""
    settings = BackendConfig(
        name="crumb", dtype="float32", placement="inline", kv_pages=256, num_threads=1
    )
    backend = create_backend(settings)
    rig = Rig(tmp_path, backend=backend, letters=Bytes())
    try:
        rig.install("guest-passes")
        answer = rig.run("guest-passes")
    finally:
        rig.close()
        backend.close()

    assert answer.pop("refused") == REFUSED
    assert untrue(answer) == []


def test_runs_begin_with_false() -> None:
    """In both directions, from bits and from places."""
    assert [0, 3] == masks.runs([True] * 3) == masks.runs_of([0, 1, 2], 3)
    assert [3] == masks.runs([False] * 3) == masks.runs_of([], 3)
    assert [1, 2, 3, 1] == masks.runs([False, True, True, False, False, False, True])
    assert [1, 2, 3, 1, 2] == masks.runs_of([6, 1, 2], 9)
    assert [False, True, True] == masks.bits([1, 2])
    for row in ([], [True, False], [False, False, True]):
        assert row == masks.bits(masks.runs(row))
    with pytest.raises(ValueError, match="outside"):
        masks.runs_of([3], 3)
