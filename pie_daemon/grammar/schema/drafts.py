"""Older drafts of JSON Schema in the words of 2020-12."""

from __future__ import annotations

from typing import Any

from pie_daemon.grammar.schema.document import Schema

_SCHEMAS = (
    *("additionalProperties", "unevaluatedProperties", "propertyNames", "contains", "not"),
    *("items", "unevaluatedItems", "additionalItems", "if", "then", "else"),
)
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")


def modern(schema: Schema) -> Schema:
    """`$schema` is dropped: the result is 2020-12 whatever it was."""
    if not isinstance(schema, dict):
        return schema
    found = {key: _keyword(key, value) for key, value in schema.items() if key != "$schema"}
    if isinstance(found.get("items"), list):
        found["prefixItems"] = found.pop("items")
        if "additionalItems" in found:
            found["items"] = found["additionalItems"]
    found.pop("additionalItems", None)
    for bound in ("minimum", "maximum"):
        exclusive = f"exclusive{bound.capitalize()}"
        if found.get(exclusive) is True and bound in found:
            found[exclusive] = found.pop(bound)
        elif isinstance(found.get(exclusive), bool):
            del found[exclusive]
    return found


def _keyword(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        if key in _SCHEMAS:
            return modern(value)
        if key in (*_MAPS, "dependencies"):
            return {name: modern(part) for name, part in value.items()}
    if isinstance(value, list) and key in _LISTS:
        return [modern(part) for part in value]
    return value
