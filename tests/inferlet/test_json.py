"""JSON as it crosses the border."""

from __future__ import annotations

import json
from typing import Any

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
