"""JSON as it crosses the border."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferlet import _json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_every_value_comes_back_and_is_utf8(value: Any) -> None:
    """Half a surrogate pair included, which UTF-8 itself cannot carry."""
    text = _json.dumps(value)
    assert value == json.loads(text.encode())


@given(st.text(st.characters()), st.dictionaries(st.text(st.characters()), VALUES, max_size=3))
def test_an_event_is_the_same_object_written_faster(type: str, fields: dict[str, Any]) -> None:
    """The short road gives what the long one would."""
    fields.pop("type", None)
    assert {"type": type, **fields} == json.loads(_json.dumps_event(type, fields).encode())


def test_options_that_are_equal_but_not_the_same_are_told_apart() -> None:
    """The text of options is remembered; for Python 0, 0.0 and False are equal."""
    for _ in range(2):
        for value in (0, 0.0, False):
            assert _json.dumps_given({"temperature": value}) == json.dumps({"temperature": value})


def test_options_without_a_value_are_left_out() -> None:
    for _ in range(2):
        assert _json.dumps_given({"top_k": None, "top_p": 0.5}) == '{"top_p": 0.5}'


def test_options_that_cannot_be_remembered_are_written_each_time() -> None:
    biases = {"logit_bias": {"7": 1.0}}
    assert json.loads(_json.dumps_given(biases)) == biases
    biases["logit_bias"]["8"] = 2.0
    assert json.loads(_json.dumps_given(biases)) == biases
    with pytest.raises(TypeError, match="not JSON serializable"):
        _json.dumps_given({"seed": object()})
