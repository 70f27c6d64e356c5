"""Text in stream deltas, through real components, when tokens are pieces of characters."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.rig import Rig, Spelling, events
from support.waiting import until

pytestmark = pytest.mark.slow

TEXT = "naïve 你好 👩‍👩‍👧‍👦 Ünïcödé €"
PROMPT = "x"
INPUTS: dict[str, dict[str, Any]] = {
    "text-completion": {"prompt": PROMPT},
    "chat": {"messages": [{"role": "user", "content": PROMPT}]},
}
Streamed = Callable[..., tuple[list[str], dict[str, Any]]]


@pytest.fixture
def streamed(tmp_path: Path) -> Iterator[Streamed]:
    """Runs a shipped program whose tokens are the bytes of TEXT: its deltas and its result."""
    rig = Rig(tmp_path, letters=Spelling(TEXT, PROMPT))

    def run(name: str, num_tokens: int, **options: Any) -> tuple[list[str], dict[str, Any]]:
        rig.install(name)
        fixed = {"max_tokens": num_tokens, "temperature": 0, "ignore_eos": True, "stream": True}
        instance = rig.launch(name, **INPUTS[name], **fixed, **options)
        until(lambda: instance.done)
        sent = [json.loads(one.data) for one in events(instance) if one.kind == "message"]
        result = rig.outcome(instance).result
        assert result is not None
        return [one["text"] for one in sent if one["type"] == "delta"], json.loads(result)

    yield run
    rig.close()


@pytest.mark.parametrize("name", INPUTS)
def test_a_character_split_over_tokens_is_never_broken(streamed: Streamed, name: str) -> None:
    """Deltas are whole characters in their order, and the tokens are all there."""
    deltas, result = streamed(name, len(TEXT.encode()))
    assert TEXT == "".join(deltas) == result["text"]
    assert all(deltas)
    assert "\ufffd" not in result["text"]
    assert len(TEXT.encode()) == len(result["tokens"])


def test_only_the_end_of_all_tokens_can_cut_a_character(streamed: Streamed) -> None:
    """What never became whole is one replacement character in the last delta."""
    deltas, result = streamed("text-completion", len("naï".encode()) - 1)
    assert "na\ufffd" == "".join(deltas) == result["text"]
    assert deltas[-1].endswith("\ufffd")


@pytest.mark.parametrize("stop", ["好", "👧", "好 👩"])
def test_a_stop_string_of_several_bytes_is_met_over_tokens(streamed: Streamed, stop: str) -> None:
    """The text ends before it; nothing of it was sent."""
    deltas, result = streamed("text-completion", len(TEXT.encode()), stop=[stop])
    before = TEXT[: TEXT.index(stop)]
    assert before == "".join(deltas) == result["text"]
    assert "stop" == result["finish_reason"]
    assert len((before + stop).encode()) == len(result["tokens"])
