"""Adapters as programs use them: a real component over the real runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pie_backend.adapter_dir import read_adapter
from pie_backend.dummy import expected_tokens
from support.adapter_files import write_adapter_files
from support.rig import Rig

pytestmark = pytest.mark.slow
PROMPT = list(range(20, 60))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    rig.install("adapted")
    yield rig
    rig.close()


def offer(rig: Rig, name: str, r: int = 1) -> str:
    path = write_adapter_files(rig.adapters / name, r=r)
    return read_adapter(path, 1 << 20).digest


def test_programs_generate_with_adapters(rig: Rig) -> None:
    """Several and none at once, one after the other on one context, and in chats."""
    digests = {None: None, "a": offer(rig, "a"), "b": offer(rig, "b", r=2)}
    names = [None, "a", "b", "a"]
    result = rig.run(
        "adapted", max_tokens=7, prompts=[[PROMPT, name] for name in names], turns=names
    )
    assert [expected_tokens(PROMPT, 7, adapters=[digests[name]]) for name in names] == result[
        "tokens"
    ]
    tokens, history = [5, 6, 7], []
    for name in names:
        history += [digests[name]] * (len(tokens) - len(history))
        tokens += expected_tokens(tokens, 7, adapters=history)
        history += [digests[name]] * 6
    assert tokens == result["turns"]
    assert 3 == len(set(result["chats"]))
    assert 2 == rig.scheduler.stats().adapters


def test_the_opinions_example_hears_every_adapter(rig: Rig) -> None:
    """It runs as it stands."""
    rig.install("opinions")
    for r, name in enumerate("ab", start=1):
        offer(rig, name, r)
    answers = rig.run("opinions", adapters=["a", "b"])
    assert ["no adapter", "a", "b"] == list(answers)
    assert 3 == len(set(answers.values()))


def test_what_cannot_be_opened_is_said(rig: Rig) -> None:
    """Names that are not there, paths, and adapters that are not supported."""
    offer(rig, "a")
    write_adapter_files(rig.adapters / "dora", use_dora=True)
    (rig.adapters / "not-one").mkdir()
    names = ["b", "../adapters/a", "", "not-one", "dora", "a"]
    result = rig.run("adapted", max_tokens=1, refusals=names)["refusals"]
    for name, (code, message) in zip(names[:4], result[:4], strict=True):
        assert code == "not-found"
        assert f"dummy has no adapter {name!r}; there are: a, dora" in message
    assert "unsupported" == result[4][0]
    assert "use_dora" in result[4][1]
    assert ["ok", ""] == result[5]
