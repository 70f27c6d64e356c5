"""Conversations: templates, turns on one context, tool calls."""

from __future__ import annotations

from typing import Any

import pytest

from inferlet import Chat, InvalidArgument, Model, ToolCall
from support.fake_pie import FakePie

CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'


def test_a_reply_is_generated_from_the_template_and_remembered(pie: FakePie) -> None:
    """The next turn's prompt begins with the first turn, answer included."""
    pie.answers = [["hello"], ["bye"]]
    chat = Chat(Model.open(), system="be kind")
    assert "hello" == chat.user("hi").reply().text
    assert "bye" == chat.user("so").reply().text
    assert ["s:be kind\nu:hi\na:", "s:be kind\nu:hi\na:hello\nu:so\na:"] == pie.prompts


def test_a_second_turn_computes_only_what_is_new(pie: FakePie) -> None:
    """The context keeps its common beginning; only the rest is appended."""
    pie.answers = [["hello"], ["bye"]]
    chat = Chat(Model.open())
    chat.user("hi").reply()
    context: Any = chat._context
    appended: list[list[int]] = []
    context.handle.append = lambda tokens: appended.append(tokens)
    chat.user("so").reply()
    assert ["\nu:so\na:"] == ["".join(map(chr, tokens)) for tokens in appended]


def test_tool_calls_are_parted_from_the_text_and_remembered(pie: FakePie) -> None:
    """The stream yields text and calls; the assistant message carries the calls."""
    pie.answers = [["I will ", CALL[:15], CALL[15:]]]
    chat = Chat(Model.open(), tools=[{"type": "function", "function": {"name": "add"}}])
    pieces = list(chat.user("1+1").stream())
    assert ["I will ", ToolCall("call_0", "add", {"a": 1})] == pieces
    function = chat.messages[-1]["tool_calls"][0]["function"]
    assert {"name": "add", "arguments": {"a": 1}} == function
    assert [{"type": "function", "function": {"name": "add"}}] == pie.templates[0]["tools"]


def test_a_relayed_reply_is_sent_and_remembered(pie: FakePie) -> None:
    """The client has its text piece by piece; the next turn begins with it."""
    pie.answers = [["hel", "", "lo"], ["bye"]]
    chat = Chat(Model.open())
    reply = chat.user("hi").relay()
    assert [{"type": "delta", "text": text} for text in ("hel", "lo")] == pie.events
    assert ("hello", "stop", 5) == (reply.text, reply.finish_reason, len(reply.tokens))
    assert 7 == reply.usage.generated_tokens
    chat.user("so").reply()
    assert pie.prompts[1].startswith(pie.prompts[0] + "hello")


def test_calls_stay_out_of_a_relayed_reply(pie: FakePie) -> None:
    """With tools the text is sent, and the calls are in the reply."""
    pie.answers = [["I will ", CALL[:15], CALL[15:]]]
    reply = Chat(Model.open(), tools=[]).user("1+1").relay()
    assert [{"type": "delta", "text": "I will "}] == pie.events
    assert [ToolCall("call_0", "add", {"a": 1})] == reply.tool_calls


def test_a_tools_answer_becomes_a_message(pie: FakePie) -> None:
    """Anything JSON is written as text for the template."""
    chat = Chat(Model.open()).tool(ToolCall("call_0", "add", {}), {"sum": 2})
    assert {
        "role": "tool",
        "tool_call_id": "call_0",
        "name": "add",
        "content": '{"sum": 2}',
    } == chat.messages[0]


def test_text_parts_and_argument_strings_are_made_plain(pie: FakePie) -> None:
    """Templates want strings as content and objects as arguments."""
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    chat = Chat(
        Model.open(),
        [{"role": "user", "content": parts}, {"role": "assistant", "tool_calls": [call]}],
    )
    assert "ab" == chat.messages[0]["content"]
    assert {"a": 1} == chat.messages[1]["tool_calls"][0]["function"]["arguments"]


@pytest.mark.parametrize(
    ("message", "match"),
    [
        ({"role": "robot", "content": "x"}, r"`messages\[0\].role` must be one of"),
        ({"content": "x"}, r"not None"),
        ({"role": "user", "content": [{"type": "image_url"}]}, r"list of text parts"),
        ({"role": "user", "content": 3}, r"`messages\[0\].content` must be a string"),
        ({"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]}, "OpenAI shape"),
        ({"role": "assistant", "tool_calls": ["x"]}, "OpenAI shape"),
    ],
)
def test_a_wrong_message_is_named_by_its_place(
    pie: FakePie, message: dict[str, Any], match: str
) -> None:
    """The error says which message and what it needs."""
    with pytest.raises(InvalidArgument, match=match):
        Chat(Model.open(), [message])


def test_a_closed_chat_starts_a_new_context(pie: FakePie) -> None:
    """Closing frees the KV cache; the conversation itself stays."""
    pie.answers = [["a"], ["b"]]
    chat = Chat(Model.open())
    chat.user("hi").reply()
    chat.close()
    assert "Context" in pie.released
    assert "b" == chat.user("so").reply().text
