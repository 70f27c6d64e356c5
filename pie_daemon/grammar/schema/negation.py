"""What a schema does not allow, as schemas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pie_daemon.grammar.schema.document import (
    TYPES,
    Document,
    Schema,
    all_of,
    any_of,
    of_type,
    type_of,
)

_MAX_DEPTH = 16
_OPPOSITES = {
    "minimum": ("number", "exclusiveMaximum"),
    "maximum": ("number", "exclusiveMinimum"),
    "exclusiveMinimum": ("number", "maximum"),
    "exclusiveMaximum": ("number", "minimum"),
}
_SIZES = {"string": "Length", "array": "Items", "object": "Properties"}


class Negation:
    """A value breaks a schema when it breaks any one of its keywords. Where a keyword cannot be
    broken in a way that can be written down it is left out, so the result may be too narrow, but
    nothing in it is valid under the schema."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._depth = 0
        self._rules: dict[str, Callable[[Any, dict[str, Any]], list[Schema]]] = {
            "type": _not_type,
            "const": lambda value, _: _not_enum([value]),
            "enum": lambda values, _: _not_enum(values),
            "required": lambda names, _: [
                of_type("object", properties={name: False}) for name in names
            ],
            "properties": self._properties,
            "items": self._items,
            "prefixItems": self._prefix_items,
            "contains": self._contains,
            "allOf": lambda parts, _: [self.of(part) for part in parts],
            "anyOf": lambda parts, _: [all_of([self.of(part) for part in parts])],
            "not": lambda part, _: [part],
            "$ref": lambda reference, _: [self.of(self._document.resolve(reference))],
        }

    def of(self, schema: Schema) -> Schema:
        """False: nothing that could be written down."""
        self._document.spend()
        if isinstance(schema, bool):
            return not schema
        if self._depth > _MAX_DEPTH:
            return False
        self._depth += 1
        try:
            alternatives = [
                one for key, value in schema.items() for one in self._broken(key, value, schema)
            ]
        finally:
            self._depth -= 1
        return any_of(alternatives)

    def _broken(self, key: str, value: Any, schema: dict[str, Any]) -> list[Schema]:
        if key in self._rules:
            return self._rules[key](value, schema)
        if key in _OPPOSITES:
            name, opposite = _OPPOSITES[key]
            return [of_type(name, **{opposite: value})]
        return _not_size(key, value)

    def _properties(self, properties: dict[str, Schema], _: dict[str, Any]) -> list[Schema]:
        broken = {name: self.of(part) for name, part in properties.items()}
        return [
            of_type("object", required=[name], properties={name: part})
            for name, part in broken.items()
            if part is not False
        ]

    def _items(self, part: Schema, schema: dict[str, Any]) -> list[Schema]:
        return self._broken_at(len(schema.get("prefixItems", ())), part)

    def _prefix_items(self, parts: list[Schema], _: dict[str, Any]) -> list[Schema]:
        return [one for i, part in enumerate(parts) for one in self._broken_at(i, part)]

    def _broken_at(self, index: int, part: Schema) -> list[Schema]:
        broken = self.of(part)
        if broken is False:
            return []
        return [of_type("array", minItems=index + 1, prefixItems=[True] * index + [broken])]

    def _contains(self, part: Schema, schema: dict[str, Any]) -> list[Schema]:
        if schema.get("minContains", 1) < 1:
            return []
        broken = self.of(part)
        return [of_type("array", maxItems=0) if broken is False else of_type("array", items=broken)]


def _not_type(allowed: str | list[str], _: dict[str, Any]) -> list[Schema]:
    names = [allowed] if isinstance(allowed, str) else allowed
    # A number that is no integer cannot be told apart early enough.
    taken = {*names, "number"} if "integer" in names else set(names)
    return [of_type(name) for name in TYPES if name not in taken]


def _not_enum(values: list[Any]) -> list[Schema]:
    """Of a type that none of them has, or larger than all of them."""
    by_type: dict[str, list[Any]] = {name: [] for name in TYPES}
    for value in values:
        by_type[type_of(value)].append(value)
    return [one for name, taken in by_type.items() for one in _not_one_of(name, taken)]


def _not_one_of(name: str, taken: list[Any]) -> list[Schema]:
    if not taken:
        return [of_type(name)]
    if name == "boolean":
        return [{"const": one} for one in (False, True) if one not in taken]
    if name == "number":
        return [of_type(name, exclusiveMinimum=max(taken))]
    if name == "null":
        return []
    return [of_type(name, **{f"min{_SIZES[name]}": max(map(len, taken)) + 1})]


def _not_size(key: str, value: Any) -> list[Schema]:
    for name, size in _SIZES.items():
        if key == f"min{size}":
            return [of_type(name, **{f"max{size}": value - 1})] if value > 0 else []
        if key == f"max{size}":
            return [of_type(name, **{f"min{size}": value + 1})]
    return []
