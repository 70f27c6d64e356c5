"""Reads a JSON object key by key; every refusal names the parameter as the client wrote it."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from pie_daemon.gateway.errors import ApiError, invalid

MAX_DEPTH = 64
"""Nested lists and objects; schemas of tools stay far below."""
_SHOWN_CHARS = 60


class Fields:
    """Take every key that is known, then `finish()`, which refuses the rest.

    null counts as absent, as clients send it for what they leave out.
    """

    def __init__(self, values: dict[str, Any], where: str = "") -> None:
        self._values = values
        self._where = where
        self._known: list[str] = []

    def param(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key

    def take(self, key: str, is_allowed: Callable[[Any], bool], allowed: str) -> Any:
        """None when it is absent."""
        self._known.append(key)
        value = self._values.get(key)
        if value is not None and not is_allowed(value):
            raise self.wrong(key, allowed)
        return value

    def wrong(self, key: str, allowed: str) -> ApiError:
        param = self.param(key)
        return invalid(f"`{param}` must be {allowed}, not {shown(self._values[key])}", param)

    def missing(self, key: str, allowed: str) -> ApiError:
        param = self.param(key)
        return invalid(f"`{param}` is missing: it must be {allowed}", param)

    def text(self, key: str) -> str | None:
        value: str | None = self.take(key, lambda v: isinstance(v, str), "a string")
        return value

    def needed_text(self, key: str) -> str:
        value = self.text(key)
        if value is None:
            raise self.missing(key, "a string")
        return value

    def flag(self, key: str) -> bool | None:
        value: bool | None = self.take(key, lambda v: isinstance(v, bool), "true or false")
        return value

    def integer(self, key: str, minimum: int, maximum: int) -> int | None:
        def is_allowed(value: Any) -> bool:
            return is_integer(value) and minimum <= value <= maximum

        value: int | None = self.take(key, is_allowed, f"an integer from {minimum} to {maximum}")
        return value

    def number(
        self, key: str, minimum: float, maximum: float, *, above: bool = False
    ) -> float | None:
        """`above`: the minimum itself is not allowed."""

        def is_allowed(value: Any) -> bool:
            return is_number(value) and minimum <= value <= maximum and not (above and value == 0)

        first = f"above {minimum:g}" if above else f"from {minimum:g}"
        value: float | None = self.take(key, is_allowed, f"a number {first} to {maximum:g}")
        return value

    def items(self, key: str) -> list[Any] | None:
        value: list[Any] | None = self.take(key, lambda v: isinstance(v, list), "a list")
        return value

    def mapping(self, key: str) -> dict[str, Any] | None:
        value: dict[str, Any] | None = self.take(key, lambda v: isinstance(v, dict), "an object")
        return value

    def only(self, key: str, *allowed: Any) -> Any:
        """One of a few values that mean what is done anyway."""
        names = " or ".join(json.dumps(value) for value in allowed)
        return self.take(key, lambda v: v in allowed and type(v) in map(type, allowed), names)

    def ignore(self, keys: Collection[str]) -> None:
        """What may be there and changes nothing."""
        self._known += keys

    def refuse(self, key: str, why: str) -> None:
        """A key that is known, and why it cannot be done here."""
        if self.take(key, lambda _: True, "") is not None:
            param = self.param(key)
            raise invalid(f"`{param}` is not supported: {why}", param, "unsupported_parameter")

    def finish(self) -> None:
        for key in self._values:
            if key not in self._known:
                param = self.param(key)
                message = f"unknown parameter `{param[:_SHOWN_CHARS]}`{self._hint(key)}"
                raise invalid(message, param[:_SHOWN_CHARS], "unknown_parameter")

    def _hint(self, key: str) -> str:
        close = difflib.get_close_matches(key[:_SHOWN_CHARS], self._known, 1)
        return f"; did you mean `{close[0]}`?" if close else ""


def decode(body: bytes) -> Fields:
    """The body of a request; ApiError for what is no JSON object."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(f"the body is not JSON: {error}", None) from None
    if not isinstance(value, dict):
        raise invalid("the body must be a JSON object", None)
    if not _is_flat(value):
        raise invalid(f"the body is nested deeper than {MAX_DEPTH} levels", None)
    return Fields(value)


def _is_flat(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            children = item.values() if isinstance(item, dict) else item
            inner += [child for child in children if isinstance(child, (dict, list))]
        if not inner:
            return True
        level = inner
    return False


def is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    return is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."
