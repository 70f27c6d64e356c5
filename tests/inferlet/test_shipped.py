"""`text-completion`, `chat` and `echo` as programs, over a faked host."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from inferlet import Exhausted, InvalidArgument, TokenLogprobs
from support.fake_pie import FakePie

Load = Callable[[str], ModuleType]
CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
USAGE = {
    "type": "usage",
    "prompt_tokens": 5,
    "cached_tokens": 0,
    "generated_tokens": 7,
    "drafted_tokens": 0,
    "accepted_tokens": 0,
    "queued_s": 0.0,
}


def test_echo_returns_its_input(shipped: Load) -> None:
    """Whatever it is."""
    assert [1, {"a": None}] == shipped("echo").run([1, {"a": None}])


def test_completion_answers_at_once_without_streaming(pie: FakePie, shipped: Load) -> None:
    """One chunk at the end, no events; special tokens added, no template."""
    pie.answers = [["hello"]]
    result = shipped("text-completion").run({"prompt": "hi", "stop": ["END"], "seed": 4})
    assert {"text": "hello", "tokens": [ord(c) for c in "hello"], "finish_reason": "stop"} == result
    assert [] == pie.sent
    assert ["\x01hi"] == pie.prompts
    assert [
        {
            "max_tokens": 128,
            "temperature": 0.7,
            "seed": 4,
            "stop_strings": ["END"],
            "ignore_eos": False,
            "chunk_tokens": 0,
        }
    ] == pie.options


def test_completion_streams_its_text_and_its_usage(pie: FakePie, shipped: Load) -> None:
    """A delta for each chunk that has text, the usage at the end."""
    pie.answers = [["he", "", "llo"]]
    pie.finish_with("Length")
    result = shipped("text-completion").run({"prompt": "hi", "stream": True})
    assert [{"type": "delta", "text": "he"}, {"type": "delta", "text": "llo"}, USAGE] == pie.events
    assert ("hello", "length") == (result["text"], result["finish_reason"])
    assert 1 == pie.options[0]["chunk_tokens"]


def test_chat_that_offers_no_tools_streams_all_that_is_said(pie: FakePie, shipped: Load) -> None:
    """Nobody could answer a call: what looks like one is text, streamed or not."""
    messages = [{"role": "user", "content": "add"}]
    pie.answers = [["Let me", CALL], ["Let me", CALL]]
    streamed, whole = (
        shipped("chat").run({"messages": messages, "stream": stream}) for stream in (True, False)
    )
    assert [{"type": "delta", "text": text} for text in ("Let me", CALL)] == pie.events[:-1]
    assert streamed == whole
    assert ("Let me" + CALL, "stop") == (whole["text"], whole["finish_reason"])


@pytest.mark.parametrize("name", ["text-completion", "chat"])
def test_a_misspelt_option_is_refused_before_anything_is_computed(
    pie: FakePie, shipped: Load, name: str
) -> None:
    """No model is opened for a request that cannot be right."""
    given: dict[str, Any] = {"prompt": "x", "messages": [{"role": "user", "content": "x"}]}
    wanted = "prompt" if name == "text-completion" else "messages"
    with pytest.raises(InvalidArgument, match="did you mean `temperature`"):
        shipped(name).run({wanted: given[wanted], "temprature": 1})


def test_chat_streams_text_calls_and_usage(pie: FakePie, shipped: Load) -> None:
    """A finished call ends in `tool_calls`, in the OpenAI shape."""
    pie.answers = [["Let me", CALL]]
    messages = [{"role": "user", "content": "add"}]
    result = shipped("chat").run({"messages": messages, "tools": [], "stream": True})
    call = {"type": "tool_call", "id": "call_0", "name": "add", "arguments": {"a": 1}}
    assert [{"type": "delta", "text": "Let me"}, call, USAGE] == pie.events
    assert ("Let me", "tool_calls") == (result["text"], result["finish_reason"])
    assert "add" == result["tool_calls"][0]["function"]["name"]


def test_chat_without_calls_has_no_such_key(pie: FakePie, shipped: Load) -> None:
    """The plain answer looks like a completion's."""
    pie.answers = [["hi"]]
    result = shipped("chat").run({"messages": [{"role": "user", "content": "x"}]})
    assert {"text", "tokens", "finish_reason"} == set(result)
    assert [] == pie.sent


@pytest.mark.parametrize("messages", [[], "hi", [1], None])
def test_chat_needs_messages(pie: FakePie, shipped: Load, messages: Any) -> None:
    """An empty or misshapen conversation is named."""
    with pytest.raises(InvalidArgument, match="`messages`"):
        shipped("chat").run({"messages": messages})


@pytest.mark.parametrize("name", ["text-completion", "chat"])
@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_are_in_the_result_only_when_asked_for(
    pie: FakePie, shipped: Load, name: str, stream: bool
) -> None:
    """One per token, with as many of the likeliest as wanted; 0 asks for the drawn token's."""
    message = {"role": "user", "content": "x"}
    asked = {"prompt": "x"} if name == "text-completion" else {"messages": [message]}
    pie.answers = [["h", "i"], ["h", "i"], ["h", "i"]]
    plain, none, two = (
        shipped(name).run({**asked, "stream": stream, **options})
        for options in ({}, {"logprobs": 0}, {"logprobs": 2})
    )
    assert "logprobs" not in plain
    assert [TokenLogprobs(-0.5, [])] * 2 == none["logprobs"]
    assert [TokenLogprobs(-0.5, [(0, -1.0), (1, -2.0)])] * 2 == two["logprobs"]


@pytest.mark.parametrize("name", ["text-completion", "chat"])
def test_penalties_and_biases_reach_the_engine(pie: FakePie, shipped: Load, name: str) -> None:
    """Under the engine's own names; ids become numbers again on the way."""
    message = {"role": "user", "content": "x"}
    asked = {"prompt": "x"} if name == "text-completion" else {"messages": [message]}
    options = {
        "repetition_penalty": 1.2,
        "presence_penalty": -0.5,
        "frequency_penalty": 2,
        "logit_bias": {"7": -100, "0": 1.5},
    }
    pie.answers = [["hi"]]
    shipped(name).run({**asked, **options})
    assert options == {key: pie.options[0][key] for key in options}


def test_the_agent_calls_tools_until_it_has_an_answer(pie: FakePie, shipped: Load) -> None:
    """Of the servers it is told to use; the client sees every step."""
    pie.tools = {"calc": {"add": "3", "sub": "hangs"}, "files": {"read": "text"}}
    pie.answers = [
        [CALL],
        [CALL.replace("add", "sub")],
        [CALL.replace("add", "read")],
        ["It is 3."],
    ]
    asked = {"messages": [{"role": "user", "content": "1+2?"}], "servers": ["calc"]}
    result = shipped("agent").run(asked)
    said = [one["text"] for one in pie.events if one["type"] == "tool_result"]

    assert ("It is 3.", "stop") == (result["text"], result["finish_reason"])
    assert ["3", "timeout: it has not answered within 60 s"] == said[:2]
    assert "there is no tool 'read'; there are: add, sub" in said[2]
    assert said == [call["text"] for call in result["tool_calls"]]
    assert [("calc", "add", {"a": 1}), ("calc", "sub", {"a": 1})] == pie.called
    assert ["add", "sub"] == [tool["function"]["name"] for tool in pie.templates[0]["tools"]]
    assert ["ToolCall"] * 2 == [name for name in pie.released if name == "ToolCall"]


def test_the_agent_gives_up_after_its_turns(pie: FakePie, shipped: Load) -> None:
    """A model that only calls tools never answers."""
    pie.tools = {"calc": {"add": "3"}}
    pie.answers = [[CALL], [CALL]]
    asked = {"messages": [{"role": "user", "content": "1+2?"}], "max_turns": 2}
    with pytest.raises(Exhausted, match="max_turns=2"):
        shipped("agent").run(asked)


@pytest.mark.parametrize("name", ["text-completion", "chat"])
def test_a_stream_carries_its_logprobs(pie: FakePie, shipped: Load, name: str) -> None:
    """With each piece of text those of the tokens since the last one."""
    message = {"role": "user", "content": "x"}
    asked = {"prompt": "x"} if name == "text-completion" else {"messages": [message]}
    pie.answers = [["h", "", "ij"]]
    shipped(name).run({**asked, "stream": True, "logprobs": 0})
    deltas = [event for event in pie.events if event["type"] == "delta"]
    assert [[ord("h")], [ord("i"), ord("j")]] == [event["tokens"] for event in deltas]
    assert [1, 2] == [len(event["logprobs"]) for event in deltas]
    assert {"chosen": -0.5, "top": []} == deltas[0]["logprobs"][0]
