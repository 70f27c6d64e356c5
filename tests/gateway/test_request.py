"""Bodies of requests: what is read, and how everything else is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie_daemon.gateway.errors import ApiError
from pie_daemon.gateway.request import HARMLESS, Ask, parse_chat, parse_completion

MESSAGES = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


Parse = Callable[[bytes, int], Ask]


def chat(**fields: Any) -> Ask:
    return parse_chat(json.dumps({"model": "m", "messages": MESSAGES, **fields}).encode(), 8)


def completion(**fields: Any) -> Ask:
    return parse_completion(json.dumps({"model": "m", "prompt": "p", **fields}).encode(), 8)


def refusal(**fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        (completion if "prompt" in fields else chat)(**fields)
    assert 400 == caught.value.status
    return caught.value


def test_a_program_gets_only_what_the_client_gave() -> None:
    """What is left out is the program's own affair."""
    assert {"messages": MESSAGES, "stream": False} == chat(temperature=None).input(0)
    assert {"prompt": "p", "stream": True} == completion(stream=True).input(0)


def test_options_arrive_under_the_programs_names() -> None:
    """All that a program can do is passed on."""
    options = {
        "temperature": 0.5,
        "top_p": 0.9,
        "presence_penalty": 1,
        "frequency_penalty": -1,
        "logit_bias": {"7": -100},
        "top_k": 5,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "ignore_eos": True,
        "seed": 4,
    }
    made = chat(**options, stop="x", max_completion_tokens=9, logprobs=True).input(0)
    assert {**options, "stop": ["x"], "max_tokens": 9, "logprobs": 0} == {
        key: value for key, value in made.items() if key not in ("messages", "stream")
    }


def test_choices_of_one_prompt_differ_in_their_seed() -> None:
    """The same seed would make them all the same."""
    ask = completion(prompt=["a", "b"], n=2, seed=-1)
    inputs = [ask.input(index) for index in range(ask.num_choices)]
    first = 2**63 - 1
    assert [("a", first), ("a", 0), ("b", first), ("b", 0)] == [
        (one["prompt"], one["seed"]) for one in inputs
    ]


def test_messages_come_in_one_shape() -> None:
    """Parts are joined, developer is system, and what an answer carried is taken back."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    made = chat(
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": parts, "name": "ann"},
            {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "3"},
        ]
    )
    assert [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "ab", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "3", "tool_call_id": "c"},
    ] == made.input(0)["messages"]


def test_tools_are_told_unless_none_is_chosen() -> None:
    """`tool_choice` none hides them from the model."""
    assert [TOOL] == chat(tools=[TOOL], tool_choice="auto").input(0)["tools"]
    assert "tools" not in chat(tools=[TOOL], tool_choice="none").input(0)
    assert "tools" not in chat(tools=[]).input(0)


@pytest.mark.parametrize("key", HARMLESS)
def test_harmless_fields_change_nothing(key: str) -> None:
    """Any value of them."""
    assert chat() == chat(**{key: {"any": ["thing"]}})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temprature": 1}, "temprature"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 9}, "n"),
        ({"n": 0}, "n"),
        ({"prompt": ["x"] * 9}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"logprobs": 1}, "logprobs"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": ""}, "stop"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "schema": {}}}, "response_format"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"functions": []}, "functions"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"messages": []}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [{"role": "robot"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": ""}]}, "messages[0].tool_call_id"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": "", "tool_calls": []}]},
            "messages[0].tool_calls",
        ),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": "x", "echo": True}, "echo"),
        ({"prompt": "x", "suffix": "y"}, "suffix"),
        ({"prompt": "x", "best_of": 2}, "best_of"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    """Never ignored: the parameter stands in `param` and in the sentence."""
    error = refusal(**fields)
    assert param == error.param
    assert param in error.message


def test_a_misspelt_parameter_is_recognised() -> None:
    """The sentence says which one was probably meant."""
    assert "did you mean `temperature`?" in refusal(temprature=1).message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'"x"',
        b"[" * 100_000,
        b'{"a":' * 500 + b"1" + b"}" * 500,
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    """Deep nesting as well, before anything walks through it."""
    for parse in (parse_chat, parse_completion):
        with pytest.raises(ApiError) as caught:
            parse(body, 8)
        assert 400 == caught.value.status


KEYS = st.sampled_from(
    "model messages prompt temperature top_p n stream stream_options stop max_tokens seed tools "
    "tool_choice logit_bias logprobs top_logprobs response_format role content name type function "
    "arguments parameters tool_calls id user metadata echo best_of".split()
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["user", "assistant", "tool", "text", "function", "auto", "{}"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
BODIES = st.dictionaries(KEYS, VALUES, max_size=8).flatmap(
    lambda given: st.fixed_dictionaries(
        {"model": st.just("m"), "messages": st.just(MESSAGES), "prompt": st.just("p")}
    ).map(lambda base: {**base, **given})
)


def _only_refuses(body: bytes) -> None:
    for parse in (parse_chat, parse_completion):
        ask = _asked(parse, body)
        if isinstance(ask, ApiError):
            json.dumps(ask.body())
            assert 400 == ask.status
        else:
            for index in range(ask.num_choices):
                json.dumps(ask.input(index), allow_nan=False).encode()


def _asked(parse: Parse, body: bytes) -> Ask | ApiError:
    try:
        return parse(body, 8)
    except ApiError as error:
        return error


@settings(max_examples=400, deadline=None)
@given(BODIES)
def test_no_object_surprises_the_parser(body: dict[str, Any]) -> None:
    """It is read or refused with 400; what programs get is always JSON."""
    _only_refuses(json.dumps(body, allow_nan=True).encode())


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_bytes_surprise_the_parser(body: bytes) -> None:
    """The same for what is no JSON at all."""
    _only_refuses(body)


@pytest.mark.parametrize("number", ["1" * 5000, "-" + "9" * 30, "1e999", "NaN"])
def test_numbers_out_of_every_range_are_refused(number: str) -> None:
    """Also where Python would not print them."""
    for key in ("seed", "temperature", "n", "max_tokens"):
        body = f'{{"model": "m", "prompt": "p", "{key}": {number}}}'
        with pytest.raises(ApiError) as caught:
            parse_completion(body.encode(), 8)
        json.dumps(caught.value.body())
