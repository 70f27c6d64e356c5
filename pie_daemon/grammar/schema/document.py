"""One schema document: what its references point at, and how a refusal names a place in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from pie_daemon.errors import PieError

Schema = Any
"""A dict or a bool, as JSON has it."""
SCHEMA_KEYS = ("additionalProperties", "items")
MAP_KEYS = ("properties", "patternProperties", "$defs", "definitions")
LIST_KEYS = ("allOf", "anyOf", "prefixItems")
MAX_WORK = 100_000
"""Schemas looked at while one document is rewritten: less than a second."""
TYPES = ("null", "boolean", "number", "string", "array", "object")


class Document:
    def __init__(self, root: Schema) -> None:
        self.root = root
        self._num_left = MAX_WORK
        found = list(_dicts(root))
        self._anchors = {
            one[key]: one
            for one in found
            for key in ("$anchor", "$dynamicAnchor")
            if isinstance(one.get(key), str)
        }
        self._num_dynamic = Counter(
            one["$dynamicAnchor"] for one in found if isinstance(one.get("$dynamicAnchor"), str)
        )
        self._has_parts = any("$id" in one for one in found if one is not root)

    def spend(self) -> None:
        """Counts work, which references and alternatives within alternatives multiply."""
        self._num_left -= 1
        if self._num_left < 0:
            raise too_large()

    def resolve(self, reference: str, keyword: str = "$ref") -> Schema:
        """Raises: PieError: `unsupported` when it points out of the document."""
        pointer = reference.removeprefix("#")
        if not reference.startswith("#") or self._has_parts:
            raise refusal(
                keyword, f"{reference!r} points to another document or a part with an $id"
            )
        if pointer and not pointer.startswith("/"):
            if pointer in self._anchors:
                return self._anchors[pointer]
            raise refusal(keyword, f"there is no anchor {pointer!r}")
        target = self.root
        for step in pointer.split("/")[1:]:
            key = unquote(step).replace("~1", "/").replace("~0", "~")
            try:
                target = target[int(key)] if isinstance(target, list) else target[key]
            except (KeyError, IndexError, TypeError, ValueError):
                raise refusal(keyword, f"{reference!r} points to nothing") from None
        return target

    def settle(self, reference: str) -> str:
        """A dynamic reference as a plain one, which it is unless an anchor is there twice."""
        name = reference.removeprefix("#")
        if not reference.startswith("#") or self._num_dynamic[name] > 1 or self._has_parts:
            raise refusal("$dynamicRef", f"what {reference!r} means depends on who refers to it")
        return reference


def refusal(keyword: str, why: str) -> PieError:
    return PieError("unsupported", f"the json-schema cannot be used: {keyword!r}: {why}")


def too_large() -> PieError:
    return PieError("unsupported", "the json-schema cannot be used: it is too large to rewrite")


def any_of(alternatives: list[Schema]) -> Schema:
    if True in alternatives or {} in alternatives:
        return True
    left = [one for one in alternatives if one is not False]
    if len(left) <= 1:
        return left[0] if left else False
    return {"anyOf": left}


def all_of(parts: list[Schema]) -> Schema:
    left = [one for one in parts if one is not True and one != {}]
    if False in left:
        return False
    if len(left) <= 1:
        return left[0] if left else True
    return {"allOf": left}


def of_type(name: str, **keywords: Any) -> dict[str, Any]:
    return {"type": name, **keywords}


def type_of(value: Any) -> str:
    """The JSON type of a value."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


def _dicts(schema: Schema) -> Iterator[dict[str, Any]]:
    waiting = [schema]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
