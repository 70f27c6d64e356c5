"""JSON Schema beyond what llguidance takes: whatever is written is valid."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pie_backend.batch import BackendInfo
from pie_backend.tokenizer import Tokenizer
from pie_daemon.errors import PieError
from pie_daemon.grammar.compiler import GrammarCompiler
from pie_daemon.grammar.guidance import GuidanceMatcher
from pie_daemon.grammar.schema import lowered
from pie_daemon.grammar.source import Source
from pie_daemon.runtime.config import LimitsConfig
from support.guided import compiled

TOKENIZER = Tokenizer("crumb")
ENDS = [2, 0]
INFO = BackendInfo(
    name="crumb",
    architecture="test",
    vocab_size=TOKENIZER.vocab_size,
    max_context=1024,
    page_size=16,
    num_pages=8,
    page_bytes=0,
    eos_tokens=ENDS,
    device="cpu",
    dtype="float32",
)
COMPILER = GrammarCompiler(TOKENIZER, INFO, LimitsConfig)


def matcher(schema: Any) -> GuidanceMatcher:
    return compiled(COMPILER, Source("json-schema", json.dumps(schema)))


def accepts(one: GuidanceMatcher, value: Any) -> bool:
    fork = one.fork()
    text = json.dumps(value, separators=(",", ":"))
    try:
        for token in TOKENIZER.encode(text, add_special=False):
            fork.accept(token)
    except PieError:
        return False
    return fork.allows_end


OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}}
CASES: list[tuple[Any, list[Any], list[Any]]] = [
    ({"type": ["string", "null"], "not": {"type": "null"}}, ["x"], [None]),
    ({"not": {"enum": [1, "a", True]}}, [2, "bc", False, None], [1, "a", True]),
    ({"type": "number", "not": {"minimum": 5}}, [4], [5, 6]),
    ({"not": {"required": ["a"]}}, [{}, {"b": 1}], [{"a": 1}, 7]),
    ({"not": {"properties": {"a": {"type": "integer"}}}}, [{"a": "x"}], [{"a": 1}, {}, 3]),
    ({"oneOf": [{"type": "integer"}, {"minimum": 2}]}, [1, -1], [3, 2]),
    (
        {"if": {"type": "string"}, "then": {"maxLength": 1}, "else": {"const": 5}},
        ["x", 5],
        ["xy", 6],
    ),
    ({"type": "array", "contains": {"const": 1}}, [[1], [1, 2]], [[], [2]]),
    ({"contains": {"const": 1}, "maxContains": 1, "type": "array"}, [[1], [1, 2]], [[1, 1], []]),
    (
        {**OBJECT, "dependentRequired": {"a": ["b"]}},
        [{}, {"b": "x"}, {"a": 1, "b": "x"}],
        [{"a": 1}],
    ),
    (
        {**OBJECT, "dependentSchemas": {"a": {"required": ["b"]}}},
        [{}, {"a": 1, "b": "x"}],
        [{"a": 1}],
    ),
    (
        {"$schema": "http://json-schema.org/draft-07/schema#", "dependencies": {"a": ["b"]}},
        [{}, 1],
        [{"a": 1}],
    ),
    ({"type": "object", "propertyNames": {"pattern": "^x"}}, [{"xy": 1}, {}], [{"y": 1}]),
    ({"type": "object", "propertyNames": {"maxLength": 2}}, [{"xy": 1}], [{"xyz": 1}]),
    ({"type": "object", "propertyNames": {"enum": ["x", "y"]}}, [{"x": 1}], [{"z": 1}]),
    ({**OBJECT, "unevaluatedProperties": False}, [{"a": 1}], [{"c": 1}]),
    (
        {"allOf": [OBJECT], "properties": {"c": True}, "unevaluatedProperties": False},
        [{"a": 1, "b": "x"}, {"c": None}],
        [{"d": 1}],
    ),
    (
        {"prefixItems": [{"const": 1}], "unevaluatedItems": False, "type": "array"},
        [[1], []],
        [[1, 2], [2]],
    ),
    ({"type": "string", "maxLength": 2.0}, ["ab"], ["abc"]),
    ({"type": "string", "format": "json-pointer"}, ["/a/b", ""], ["a"]),
    (
        {"$dynamicAnchor": "n", "type": "array", "items": {"$dynamicRef": "#n"}},
        [[], [[], [[]]]],
        [[1], 1],
    ),
    (
        {
            "$schema": "http://json-schema.org/draft-04/schema#",
            "type": "integer",
            "minimum": 3,
            "exclusiveMinimum": True,
            "not": {"const": 9},
        },
        [10],
        [3, 9],
    ),
    (
        {
            "items": [{"const": 1}],
            "additionalItems": False,
            "not": {"maxItems": 0},
            "type": "array",
        },
        [[1]],
        [[], [1, 1]],
    ),
]


@pytest.mark.parametrize(("schema", "valid", "invalid"), CASES)
def test_keywords_that_look_at_the_whole_are_enforced(
    schema: Any, valid: list[Any], invalid: list[Any]
) -> None:
    """Valid values can be written, invalid ones cannot."""
    one = matcher(schema)

    assert [] == [value for value in valid if not accepts(one, value)]
    assert [] == [value for value in invalid if accepts(one, value)]


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"uniqueItems": True}, "'uniqueItems'"),
        ({"propertyNames": {"pattern": "^a", "maxLength": 3}}, "'propertyNames'"),
        ({"oneOf": [{"pattern": "^a"}, {"pattern": "b$"}]}, "'oneOf'"),
        ({"not": {"$ref": "http://x/y"}}, "'$ref'"),
        ({"contains": {"const": 1}, "minContains": 1000}, "'contains'"),
    ],
)
def test_what_cannot_be_rewritten_is_refused_by_keyword(schema: Any, keyword: str) -> None:
    """Nothing is left out in silence."""
    with pytest.raises(PieError, match="cannot be used") as refused:
        matcher(schema)
    assert keyword in refused.value.message


def test_a_schema_that_multiplies_is_refused_in_time() -> None:
    """References and alternatives within alternatives."""
    deep: Any = {"type": "integer"}
    for _ in range(12):
        deep = {"oneOf": [deep, {"not": deep}, {"const": 1}, {"minimum": 3}]}
    with pytest.raises(PieError) as refused:
        lowered(deep)
    assert "unsupported" == refused.value.code


def _schemas() -> st.SearchStrategy[Any]:
    value = st.sampled_from([1, 2, "a", "bc", None, True, [], {"a": 1}])
    size = st.integers(0, 2)
    leaf = st.one_of(
        st.booleans(),
        st.builds(
            lambda name: {"type": name},
            st.sampled_from(["integer", "string", "array", "object", "null"]),
        ),
        st.builds(lambda one: {"const": one}, value),
        st.builds(
            lambda key, n: {key: n},
            st.sampled_from(["minimum", "maxLength", "minItems", "maxItems", "maxProperties"]),
            size,
        ),
        st.just({"required": ["a"]}),
    )

    def more(part: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        parts = st.lists(part, min_size=1, max_size=2)
        keywords = {
            "not": part,
            "oneOf": parts,
            "anyOf": parts,
            "allOf": parts,
            "if": part,
            "then": part,
            "else": part,
            "contains": part,
            "minContains": st.integers(0, 2),
            "maxContains": st.integers(0, 2),
            "items": part,
            "prefixItems": parts,
            "properties": st.fixed_dictionaries({"a": part}, optional={"b": part}),
            "additionalProperties": part,
            "dependentSchemas": st.fixed_dictionaries({"a": part}),
            "unevaluatedProperties": part,
            "unevaluatedItems": part,
            "propertyNames": st.sampled_from([True, {"maxLength": 1}, {"enum": ["a", "b"]}]),
            "type": st.sampled_from(["array", "object", ["array", "object", "integer"]]),
        }
        names = st.lists(st.sampled_from(sorted(keywords)), min_size=1, max_size=4, unique=True)
        return names.flatmap(lambda chosen: st.fixed_dictionaries({n: keywords[n] for n in chosen}))

    return st.recursive(leaf, more, max_leaves=6)


@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=_schemas(), seed=st.integers(0, 1 << 16))
def test_whatever_is_written_is_valid(schema: Any, seed: int) -> None:
    """Any schema that is supported, any text that its masks allow: the reference has the word."""
    try:
        one = matcher(schema)
    except PieError:
        assume(False)
        return
    source = random.Random(seed)
    for _ in range(3):
        text = written(one.fork(), source)
        if text is not None:
            value = json.loads(text)
            assert jsonschema.Draft202012Validator(schema).is_valid(value), (schema, text)


def written(one: GuidanceMatcher, source: random.Random) -> str | None:
    """A random walk to an end, with a liking for what closes; None: too long."""
    data = b""
    for _ in range(60):
        mask = one.mask()
        allowed = [token for token in range(INFO.vocab_size) if mask[token // 8] >> token % 8 & 1]
        closing = [t for t in allowed if t in ENDS or TOKENIZER.token_bytes(t)[:1] in b'"]}']
        token = source.choice(closing if closing and source.random() < 0.5 else allowed)
        if token in ENDS:
            return data.decode()
        data += TOKENIZER.token_bytes(token)
        one.accept(token)
    return None
