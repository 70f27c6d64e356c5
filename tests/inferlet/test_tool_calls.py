"""Tool calls found in text that comes in pieces of any size."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferlet import ToolCallParser

CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
TEXT = f"before {CALL} between < and <tool {CALL} after"


def parsed(pieces: list[str]) -> tuple[str, list[str]]:
    parser = ToolCallParser()
    text = "".join(parser.feed(piece) for piece in pieces) + parser.close()
    return text, [call.id for call in parser.calls]


@given(st.lists(st.integers(1, len(TEXT) - 1), unique=True).map(sorted))
def test_the_pieces_do_not_matter(cuts: list[int]) -> None:
    """However the text is cut, the same calls come out and the same text stays."""
    bounds = [0, *cuts, len(TEXT)]
    pieces = [TEXT[a:b] for a, b in pairwise(bounds)]
    assert ("before  between < and <tool  after", ["call_0", "call_1"]) == parsed(pieces)


@pytest.mark.parametrize(
    "broken",
    [
        "<tool_call>{not json}</tool_call>",
        "<tool_call>[1]</tool_call>",
        '<tool_call>{"name": 3}</tool_call>',
        '<tool_call>{"name": "x", "arguments": "y"}</tool_call>',
        "<tool_call>{",
    ],
)
def test_a_broken_call_stays_text(broken: str) -> None:
    """Nothing the model said is lost when it is no call."""
    assert (f"a{broken}", []) == parsed(["a", broken])


def test_text_is_held_back_only_while_it_may_begin_a_call() -> None:
    """A stream stays fluent: one `<` waits, and comes as soon as it is clear."""
    parser = ToolCallParser()
    assert ["a ", "", "<b", " c"] == [parser.feed(piece) for piece in ("a ", "<", "b", " c")]


def test_a_call_reads_back_in_the_openai_shape() -> None:
    """What goes into the next request's messages: arguments as a JSON string."""
    parser = ToolCallParser()
    parser.feed(CALL)
    assert {
        "id": "call_0",
        "type": "function",
        "function": {"name": "add", "arguments": '{"a": 1}'},
    } == parser.calls[0].openai()
