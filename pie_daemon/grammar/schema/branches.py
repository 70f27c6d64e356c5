"""The ways to be valid under a schema, and which properties and items each has looked at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

from pie_daemon.grammar.schema.document import Document, Schema, refusal
from pie_daemon.grammar.schema.negation import Negation

MAX_BRANCHES = 64
_MAX_DEPTH = 12
_APPLICATORS = (
    "allOf",
    "anyOf",
    "oneOf",
    "if",
    "then",
    "else",
    "$ref",
    "$dynamicRef",
    "dependentSchemas",
    "unevaluatedProperties",
    "unevaluatedItems",
)


@dataclass(frozen=True, slots=True)
class Branch:
    """Whatever is valid under all parts has had at least these evaluated."""

    parts: tuple[Schema, ...] = ()
    names: frozenset[str] = frozenset()
    patterns: frozenset[str] = frozenset()
    num_items: int = 0
    all_names: bool = False
    all_items: bool = False

    def __and__(self, other: Branch) -> Branch:
        return Branch(
            self.parts + other.parts,
            self.names | other.names,
            self.patterns | other.patterns,
            max(self.num_items, other.num_items),
            self.all_names or other.all_names,
            self.all_items or other.all_items,
        )


class Branches:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._not = Negation(document)
        self._depth = 0

    def of(self, schema: Schema) -> list[Branch]:
        self._document.spend()
        if isinstance(schema, bool):
            return [Branch()] if schema else []
        if self._depth > _MAX_DEPTH:
            # It is still obeyed; only what it evaluates is not counted.
            return [Branch((schema,))]
        self._depth += 1
        try:
            return self._and([[_own(schema)], *self._choices(schema)])
        finally:
            self._depth -= 1

    def inner(self, schema: dict[str, Any]) -> list[Branch]:
        """Without what the schema's own `unevaluated...` would evaluate."""
        dropped = ("unevaluatedProperties", "unevaluatedItems")
        return self.of({key: value for key, value in schema.items() if key not in dropped})

    def _choices(self, schema: dict[str, Any]) -> Iterable[list[Branch]]:
        for part in schema.get("allOf", ()):
            yield self.of(part)
        if "anyOf" in schema:
            yield [one for part in schema["anyOf"] for one in self.of(part)]
        if "oneOf" in schema:
            yield self._one_of(schema["oneOf"])
        if "if" in schema:
            yield self._conditional(schema)
        for key in ("$ref", "$dynamicRef"):
            if key in schema:
                yield self._reference(key, schema[key])
        for name, part in schema.get("dependentSchemas", {}).items():
            without = Branch(({"properties": {name: False}},))
            yield [without, *self._and([[Branch(({"required": [name]},))], self.of(part)])]

    def _reference(self, key: str, reference: str) -> list[Branch]:
        if key == "$dynamicRef":
            reference = self._document.settle(reference)
        return self.of(self._document.resolve(reference, key))

    def _one_of(self, parts: list[Schema]) -> list[Branch]:
        found = []
        for i, part in enumerate(parts):
            others = tuple(self._not.of(other) for j, other in enumerate(parts) if j != i)
            if False not in others:
                found += self._and([[Branch(others)], self.of(part)])
        return found

    def _conditional(self, schema: dict[str, Any]) -> list[Branch]:
        found = self._and([self.of(schema["if"]), self.of(schema.get("then", True))])
        otherwise = self._not.of(schema["if"])
        if otherwise is not False:
            found += self._and([[Branch((otherwise,))], self.of(schema.get("else", True))])
        return found

    def _and(self, choices: list[list[Branch]]) -> list[Branch]:
        found = [Branch()]
        for alternatives in choices:
            found = [left & right for left, right in product(found, alternatives)]
            if len(found) > MAX_BRANCHES:
                raise refusal(
                    "unevaluatedProperties", f"there are more than {MAX_BRANCHES} ways to be valid"
                )
        return found


def _own(schema: dict[str, Any]) -> Branch:
    """What a schema says by itself, without the schemas that it applies in place."""
    has_names = "additionalProperties" in schema or "unevaluatedProperties" in schema
    has_items = "items" in schema or "unevaluatedItems" in schema
    nested = {key: schema[key] for key in _nested(schema)}
    kept = {key: value for key, value in schema.items() if key not in _APPLICATORS}
    return Branch(
        tuple(part for part in (kept, nested) if part),
        frozenset(schema.get("properties", ())),
        frozenset(schema.get("patternProperties", ())),
        len(schema.get("prefixItems", ())),
        has_names,
        has_items,
    )


def _nested(schema: dict[str, Any]) -> Iterable[str]:
    """An `unevaluated...` within needs all that it looks at beside it."""
    own = ("unevaluatedProperties", "unevaluatedItems")
    return tuple(schema) if any(key in schema for key in own) else ()
