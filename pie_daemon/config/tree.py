"""Plain nested dictionaries with a memory of where each value was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Key = tuple[str, ...]
DEFAULT = "default"


def dotted(key: Key) -> str:
    return ".".join(key)


def flatten(values: Mapping[str, Any], prefix: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Every leaf with its key; an empty mapping is a leaf, too."""
    for name, value in values.items():
        key = (*prefix, str(name))
        if isinstance(value, Mapping) and value:
            yield from flatten(value, key)
        else:
            yield key, value


@dataclass
class Tree:
    """Values merged from several layers, lowest first."""

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[Key, str] = field(default_factory=dict)
    """`default`, `file:line` or `cli`, for every leaf that some layer has set."""

    def assign(self, key: Key, value: Any, source: str) -> None:
        node = self.values
        for name in key[:-1]:
            child = node.get(name)
            if not isinstance(child, dict):
                child = node[name] = {}
            node = child
        node[key[-1]] = value
        for old in [k for k in self.sources if _overlap(k, key)]:
            del self.sources[old]
        self.sources[key] = source

    def merge(self, values: Mapping[str, Any], sources: Mapping[Key, str], fallback: str) -> None:
        for key, value in flatten(values):
            # `section:` with nothing below it is how people leave a section empty in YAML.
            if len(key) > 1 or value not in (None, {}):
                self.assign(key, value, sources.get(key, fallback))

    def source(self, key: Key) -> str:
        """Where the value was written; for a part or a container of one, where that was."""
        related = [known for known in self.sources if _overlap(known, key)]
        return self.sources[max(related, key=len)] if related else DEFAULT


def _overlap(one: Key, other: Key) -> bool:
    """True when the keys are the same, or one lies below the other."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]
