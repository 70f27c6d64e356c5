"""What the guest package makes of constraints before the host sees them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferlet import Chat, Constraint, Context, InvalidArgument, Model
from support.fake_pie import FakePie

SCHEMA = {"type": "boolean"}


class Described:
    @staticmethod
    def model_json_schema() -> dict[str, Any]:
        return SCHEMA


@pytest.mark.parametrize("schema", [SCHEMA, json.dumps(SCHEMA), Described, Described()])
def test_a_schema_may_be_a_dict_a_text_or_a_described_class(pie: FakePie, schema: Any) -> None:
    """All of them are the same text at the border."""
    Constraint.json_schema(Model.open(), schema)
    assert [("json_schema", (json.dumps(SCHEMA),))] == pie.constraints


def test_what_is_no_json_is_refused_here(pie: FakePie) -> None:
    """Before it crosses the border."""
    with pytest.raises(InvalidArgument, match="not JSON"):
        Constraint.json_schema(Model.open(), {"const": object()})


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        (None, []),
        ({"type": "text"}, []),
        ({"type": "json_object"}, [("json_schema", ('{"type": "object"}',))]),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}},
            [("json_schema", (json.dumps(SCHEMA),))],
        ),
    ],
)
def test_response_formats_are_those_of_openai(pie: FakePie, asked: Any, made: Any) -> None:
    """Text is no constraint."""
    found = Constraint.response_format(Model.open(), asked)
    assert (made, bool(made)) == (pie.constraints, found is not None)


@pytest.mark.parametrize("asked", [{"type": "xml"}, {"type": "json_schema"}, {"a": 1}])
def test_other_response_formats_are_refused_with_what_is_allowed(pie: FakePie, asked: Any) -> None:
    """The sentence shows the three."""
    with pytest.raises(InvalidArgument, match="json_object"):
        Constraint.response_format(Model.open(), asked)


def test_generations_and_turns_take_a_constraint(pie: FakePie) -> None:
    """Its handle goes along; without one nothing does."""
    model = Model.open()
    made = Constraint.choice(model, ["yes", "no"])
    pie.answers = [["yes"], ["no"], ["so"]]
    with Context(model) as context:
        context.append([1])
        context.generate(constraint=made).collect()
    chat = Chat(model)
    chat.user("a").reply(constraint=made)
    chat.user("b").reply()
    assert [made.handle, made.handle, None] == pie.constrained
