"""What keys there are: every leaf of the section structs with its type and its metadata."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

from pie_daemon.config.sections import NamedModel, PieConfig
from pie_daemon.config.tree import Key, dotted
from pie_daemon.runtime.outside.config import McpServer

MODELS = "models"
ANY_NAME = "NAME"
NAMED: dict[Key, type[msgspec.Struct]] = {(MODELS,): NamedModel, ("mcp", "servers"): McpServer}
"""Where entries with names of their own stand, and what such an entry is."""


@dataclass(frozen=True)
class Leaf:
    """One key that can be set."""

    key: Key
    type: Any
    default: Any
    description: str
    unit: str
    why: str
    reload: str
    """live, rebuild or restart; empty when the schema forgot it, which a test refuses."""
    is_secret: bool
    """Its value is not shown."""

    @property
    def allowed(self) -> str:
        return describe(self.type)


@cache
def leaves() -> dict[Key, Leaf]:
    """All of them in the order of the structs; entries with names stand under NAME."""
    sections = msgspec.structs.fields(PieConfig)
    return {
        leaf.key: leaf for section in sections for leaf in _below((section.name,), section.type)
    }


def _below(key: Key, kind: Any) -> Iterator[Leaf]:
    if key in NAMED:
        yield from _fields(NAMED[key], (*key, ANY_NAME))
    else:
        yield from _fields(kind, key)


def _fields(struct: type[msgspec.Struct], prefix: Key) -> Iterator[Leaf]:
    for info in msgspec.structs.fields(struct):
        if (*prefix, info.name) in NAMED:
            yield from _below((*prefix, info.name), None)
            continue
        metas = [m for m in getattr(info.type, "__metadata__", ()) if isinstance(m, msgspec.Meta)]
        extra: dict[str, Any] = {}
        for meta in metas:
            extra |= meta.extra or {}
        yield Leaf(
            key=(*prefix, info.name),
            type=info.type,
            default=_default(info),
            description=next((m.description for m in metas if m.description), "").rstrip("."),
            unit=extra.get("unit", ""),
            why=extra.get("why", ""),
            reload=extra.get("class", ""),
            is_secret=extra.get("secret", False),
        )


def _default(info: msgspec.structs.FieldInfo) -> Any:
    if info.default_factory is not msgspec.NODEFAULT:
        return info.default_factory()
    return None if info.default is msgspec.NODEFAULT else info.default


def sections() -> list[str]:
    return [section.name for section in msgspec.structs.fields(PieConfig)]


def find(key: Key) -> Leaf | None:
    """The leaf that a key names; any name of an entry will do."""
    prefix = named_prefix(key)
    if prefix is not None and len(key) > len(prefix) + 1:
        key = (*prefix, ANY_NAME, *key[len(prefix) + 1 :])
    return leaves().get(key)


def named_prefix(key: Key) -> Key | None:
    """Of `models.a.path`, `models`; None for a key that stands under no such name."""
    return next((prefix for prefix in NAMED if key[: len(prefix)] == prefix), None)


def is_section(key: Key) -> bool:
    """True for what holds leaves: a section, what holds entries, and each of those."""
    if len(key) == 1 and key[0] in sections():
        return True
    prefix = named_prefix(key)
    return prefix is not None and len(key) <= len(prefix) + 1


def unknown(key: Key) -> str:
    """Why a key is refused, with what there is and what was probably meant."""
    reason = f"there is no such key{_suggestion(key)}"
    known = [leaf.key[-1] for leaf in leaves().values() if leaf.key[0] == key[0]]
    if len(key) > 1 and known:
        return f"{reason}; {key[0]} has: {', '.join(known)}"
    return f"{reason}; the sections are: {', '.join(sections())}"


def _suggestion(key: Key) -> str:
    names = [dotted(leaf) for leaf in leaves()]
    same_end = [dotted(leaf) for leaf in leaves() if leaf[-1] == key[-1]]
    near = same_end or difflib.get_close_matches(dotted(key), names, n=1, cutoff=0.75)
    near = near or (difflib.get_close_matches(key[0], sections(), n=1) if len(key) == 1 else [])
    return f"; did you mean {near[0]}?" if near else ""


_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "text"}


def describe(kind: Any) -> str:
    """A type in words: `an integer, at least 1, or null`."""
    if (metadata := getattr(kind, "__metadata__", None)) is not None:
        bounds = [text for meta in metadata for text in _bounds(meta)]
        return ", ".join([describe(kind.__origin__), *bounds])
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (Union, UnionType):
        parts = ["null" if part is type(None) else describe(part) for part in arguments]
        return ", or ".join(parts)
    if origin in (tuple, list, frozenset):
        return f"a list, each {describe(arguments[0])}"
    if origin is dict:
        return f"keys with {describe(arguments[1])} each"
    return _WORDS.get(kind, getattr(kind, "__name__", str(kind)))


def _bounds(meta: Any) -> list[str]:
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    found = [
        f"{text} {value}"
        for name, text in words.items()
        if (value := getattr(meta, name, None)) is not None
    ]
    if (pattern := getattr(meta, "pattern", None)) is not None:
        found.append(meta.title or f"matching {pattern}")
    return found
