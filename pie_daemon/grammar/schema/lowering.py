"""Rewrites what llguidance refuses into what it takes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pie_daemon.errors import PieError
from pie_daemon.grammar.schema.branches import Branch, Branches
from pie_daemon.grammar.schema.document import (
    LIST_KEYS,
    MAP_KEYS,
    SCHEMA_KEYS,
    TYPES,
    Document,
    Schema,
    all_of,
    any_of,
    of_type,
    refusal,
    too_large,
)
from pie_daemon.grammar.schema.drafts import modern
from pie_daemon.grammar.schema.negation import Negation

_MAX_PLACES = 256
_COUNTS = tuple(f"{end}{what}" for end in ("min", "max") for what in ("Length", "Items"))
_INTEGERS = frozenset((*_COUNTS, "minProperties", "maxProperties"))
# A format says nothing about validity by default, so a narrower one will do.
_NARROWER_FORMATS = {
    "uri-reference": "uri",
    "uri-template": "uri",
    "iri": "uri",
    "iri-reference": "uri",
    "idn-email": "email",
    "idn-hostname": "hostname",
}
_FORMAT_PATTERNS = {
    "json-pointer": "^(/[A-Za-z0-9_-]*)*$",
    "relative-json-pointer": "^(0|[1-9][0-9]{0,3})(#|(/[A-Za-z0-9_-]*)*)$",
    "regex": "^[A-Za-z0-9_ -]*$",
}


def lowered(schema: Schema) -> Schema:
    """
    Raises:
        PieError: `unsupported`, naming the keyword that cannot be enforced, or
            `invalid-argument` for what is no schema.
    """
    try:
        root = modern(schema)
        return Lowering(Document(root)).lower(root)
    except RecursionError:
        raise too_large() from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PieError(
            "invalid-argument",
            f"the json-schema cannot be used: a keyword has a value of the wrong kind: {error}",
        ) from None


class Lowering:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._not = Negation(document)
        self._branches = Branches(document)
        self._rules: dict[str, Callable[[dict[str, Any]], list[Schema]]] = {
            "not": lambda schema: [self._not.of(schema["not"])],
            "oneOf": self._one_of,
            "if": self._conditional,
            "contains": self._contains,
            "uniqueItems": _unique_items,
            "dependentRequired": _dependent_required,
            "dependentSchemas": lambda schema: _dependent(schema["dependentSchemas"]),
            "dependencies": _dependencies,
            "propertyNames": self._property_names,
            "format": _format,
        }
        self._dropped = {*self._rules, "then", "else", "minContains", "maxContains"}

    def lower(self, schema: Schema) -> Schema:
        self._document.spend()
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise refusal("schema", "it must be an object or a boolean")
        if "unevaluatedProperties" in schema or "unevaluatedItems" in schema:
            return self._unevaluated(schema)
        extra = [
            self.lower(part)
            for key in self._rules
            if key in schema
            for part in self._rules[key](schema)
        ]
        kept = {
            name: self._keyword(key, value)
            for key, value in schema.items()
            if key not in self._dropped
            for name in [self._renamed(key, value)]
        }
        if not extra:
            return kept
        return {**kept, "allOf": [*kept.get("allOf", ()), *map(_as_object, extra)]}

    def _keyword(self, key: str, value: Any) -> Any:
        if key in SCHEMA_KEYS:
            return self.lower(value)
        if key in MAP_KEYS and isinstance(value, dict):
            return {name: self.lower(part) for name, part in value.items()}
        if key in LIST_KEYS and isinstance(value, list):
            return [self.lower(part) for part in value]
        if key in _INTEGERS and isinstance(value, float) and value.is_integer():
            return int(value)
        if key == "$dynamicRef":
            return self._document.settle(value)
        return value

    def _renamed(self, key: str, value: Any) -> str:
        return {"$dynamicRef": "$ref", "$dynamicAnchor": "$anchor"}.get(key, key)

    def _one_of(self, schema: dict[str, Any]) -> list[Schema]:
        parts = schema["oneOf"]
        alternatives = []
        for i, part in enumerate(parts):
            others = [self._not.of(other) for j, other in enumerate(parts) if j != i]
            alternatives.append(all_of([part, *others]))
        found = any_of(alternatives)
        if found is False and len(parts) > 1:
            raise refusal("oneOf", "its parts overlap, and where they do not cannot be told")
        return [found]

    def _conditional(self, schema: dict[str, Any]) -> list[Schema]:
        if "then" not in schema and "else" not in schema:
            return []
        condition = schema["if"]
        both = all_of([condition, schema.get("then", True)])
        otherwise = all_of([self._not.of(condition), schema.get("else", True)])
        return [any_of([both, otherwise])]

    def _contains(self, schema: dict[str, Any]) -> list[Schema]:
        """The first places are for what has to be contained, after as many as are taken."""
        part = schema["contains"]
        least, most = int(schema.get("minContains", 1)), schema.get("maxContains")
        if least > _MAX_PLACES:
            raise refusal("contains", f"more than {_MAX_PLACES} items have to be found")
        if most is None and least == 0:
            return []
        others = [of_type(name) for name in TYPES if name != "array"]
        if most is not None and most < least:
            return [any_of(others)]
        rest = True if most is None else self._not.of(part)
        num_taken = min(len(schema.get("prefixItems", ())), 4)
        arrays = [_placed(part, least, rest, skipped) for skipped in range(num_taken + 1)]
        return [any_of([*others, *arrays])]

    def _property_names(self, schema: dict[str, Any]) -> list[Schema]:
        names = schema["propertyNames"]
        if isinstance(names, bool):
            return [] if names else [{"maxProperties": 0}]
        pattern = _name_pattern(names)
        return [{"patternProperties": {pattern: True}, "additionalProperties": False}]

    def _unevaluated(self, schema: dict[str, Any]) -> Schema:
        alternatives = [
            all_of([*branch.parts, *_evaluated(schema, branch)])
            for branch in self._branches.inner(schema)
        ]
        definitions = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
        return self.lower({**definitions, **_as_object(any_of(alternatives))})


def _evaluated(schema: dict[str, Any], branch: Branch) -> list[Schema]:
    """What the `unevaluated...` of a schema leave to one way of being valid."""
    found: list[Schema] = []
    if "unevaluatedProperties" in schema and not branch.all_names:
        found.append(
            {
                "properties": dict.fromkeys(sorted(branch.names), True),
                "patternProperties": dict.fromkeys(sorted(branch.patterns), True),
                "additionalProperties": schema["unevaluatedProperties"],
            }
        )
    if "unevaluatedItems" in schema and not branch.all_items:
        prefix = [True] * branch.num_items
        found.append({"prefixItems": prefix, "items": schema["unevaluatedItems"]})
    return found


def _placed(part: Schema, least: int, rest: Schema, skipped: int) -> Schema:
    """Items before the wanted ones count among the rest, of which none may be wanted."""
    prefix = [rest] * skipped + [part] * least
    return of_type("array", minItems=len(prefix), prefixItems=prefix, items=rest)


def _unique_items(schema: dict[str, Any]) -> list[Schema]:
    if not schema["uniqueItems"] or schema.get("maxItems", 2) <= 1:
        return []
    raise refusal("uniqueItems", "what came before would have to be remembered")


def _dependent_required(schema: dict[str, Any]) -> list[Schema]:
    return [
        any_of([{"properties": {name: False}}, {"required": [name, *others]}])
        for name, others in schema["dependentRequired"].items()
        if others
    ]


def _dependent(schemas: dict[str, Schema]) -> list[Schema]:
    return [
        any_of([{"properties": {name: False}}, all_of([{"required": [name]}, part])])
        for name, part in schemas.items()
    ]


def _dependencies(schema: dict[str, Any]) -> list[Schema]:
    parts = {
        name: {"required": part} if isinstance(part, list) else part
        for name, part in schema["dependencies"].items()
    }
    return _dependent(parts)


def _format(schema: dict[str, Any]) -> list[Schema]:
    name = schema["format"]
    if name in _FORMAT_PATTERNS:
        return [any_of([*_not_strings(), of_type("string", pattern=_FORMAT_PATTERNS[name])])]
    return []


def _not_strings() -> list[Schema]:
    return [of_type(name) for name in TYPES if name != "string"]


def _name_pattern(names: dict[str, Any]) -> str:
    rules = [key for key in ("pattern", "const", "enum", "minLength", "maxLength") if key in names]
    others = names.keys() - {*rules, "type", "$comment", "title", "description", "format"}
    if others or names.get("type", "string") != "string":
        raise refusal(
            "propertyNames", f"{sorted(others or ['type'])[0]!r} of names is not supported"
        )
    match rules:
        case ["pattern"]:
            return str(names["pattern"])
        case ["const"]:
            return f"^{re.escape(str(names['const']))}$"
        case ["enum"]:
            known = "|".join(re.escape(one) for one in names["enum"] if isinstance(one, str))
            return f"^({known})$"
        case ["minLength"] | ["maxLength"] | ["minLength", "maxLength"]:
            return f"^.{{{names.get('minLength', 0)},{names.get('maxLength', '')}}}$"
        case []:
            return ""
    raise refusal("propertyNames", "only one kind of rule for names is supported")


def _as_object(schema: Schema) -> dict[str, Any]:
    return schema if isinstance(schema, dict) else {"allOf": [schema]}
