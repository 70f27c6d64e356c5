"""Reads a program's JSON input key by key, with errors that say what is allowed."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable
from typing import Any, TypeVar, overload

from inferlet.context import GenerateOptions
from inferlet.errors import InvalidArgument

T = TypeVar("T")


class Arguments:
    """Take every key the program knows, then `finish()`, which refuses the rest by name."""

    def __init__(self, input: Any) -> None:
        if not isinstance(input, dict):
            raise InvalidArgument(f"the input must be a JSON object, not {_kind(input)}")
        self._input = input
        self._known: list[str] = []

    @overload
    def text(self, key: str) -> str: ...
    @overload
    def text(self, key: str, default: T) -> str | T: ...
    def text(self, key: str, default: Any = ...) -> Any:
        return self._take(key, default, lambda v: isinstance(v, str), "a string")

    def integer(
        self,
        key: str,
        default: Any = ...,
        *,
        minimum: int | None = None,
        maximum: int | None = None,
    ) -> Any:
        allowed = "an integer" + _bounds(minimum, maximum)
        return self._take(
            key, default, lambda v: _is_integer(v) and _within(v, minimum, maximum), allowed
        )

    def number(
        self,
        key: str,
        default: Any = ...,
        *,
        minimum: float | None = None,
        above: float | None = None,
        maximum: float | None = None,
    ) -> Any:
        """`minimum` may be reached, `above` may not."""
        allowed = "a number" + _bounds(minimum, maximum, above)

        def is_allowed(value: Any) -> bool:
            return _is_number(value) and _within(value, minimum, maximum, above)

        return self._take(key, default, is_allowed, allowed)

    def boolean(self, key: str, default: bool) -> bool:
        value = self._take(key, default, lambda v: isinstance(v, bool), "true or false")
        return bool(value)

    def texts(self, key: str, default: Iterable[str] = ()) -> list[str]:
        """A list of strings; a single string counts as a list of one."""
        value = self._take(key, list(default), _is_texts, "a list of strings, none of them empty")
        return [value] if isinstance(value, str) else value

    def biases(self, key: str) -> dict[int, float] | None:
        """An object from token ids, which JSON has to write as strings, to numbers."""
        value = self._take(key, None, _is_biases, "an object of token ids and numbers within 100")
        return None if value is None else {int(token): bias for token, bias in value.items()}

    def mapping(self, key: str, default: Any = ...) -> Any:
        return self._take(key, default, lambda v: isinstance(v, dict), "an object")

    def items(self, key: str, default: Any = ...) -> Any:
        """A list of JSON objects, which is what `messages` and `tools` are."""
        allowed = "a list of objects"
        if default is ...:
            return self._take(key, default, lambda v: v and _is_objects(v), allowed + ", not empty")
        return self._take(key, default, _is_objects, allowed)

    def finish(self) -> None:
        for key in self._input:
            if key not in self._known:
                raise InvalidArgument(f"unknown key `{key}`{self._hint(key)}")

    def _near(self, key: str) -> str:
        close = difflib.get_close_matches(key, [str(given) for given in self._input], 1)
        return f" (the input has `{close[0]}`)" if close and close[0] != key else ""

    def _hint(self, key: str) -> str:
        close = difflib.get_close_matches(key, self._known, 1)
        if close:
            return f"; did you mean `{close[0]}`?"
        return "; allowed are " + ", ".join(f"`{known}`" for known in self._known)

    def _take(self, key: str, default: Any, allowed: Any, description: str) -> Any:
        """An absent or null key takes its default; `...` as the default makes it required."""
        self._known.append(key)
        value = self._input.get(key)
        if value is None:
            if default is ...:
                raise InvalidArgument(
                    f"`{key}` is missing: it must be {description}{self._near(key)}"
                )
            return default
        if not allowed(value):
            raise InvalidArgument(f"`{key}` must be {description}, not {_kind(value)}")
        return value


def generate_options(arguments: Arguments) -> GenerateOptions:
    """The sampling keys that every text program takes, checked; `stop` becomes `stop_strings`."""
    return GenerateOptions(
        max_tokens=arguments.integer("max_tokens", 128, minimum=1),
        temperature=arguments.number("temperature", 0.7, minimum=0, maximum=100),
        top_p=arguments.number("top_p", None, above=0, maximum=1),
        top_k=arguments.integer("top_k", None, minimum=0),
        min_p=arguments.number("min_p", None, minimum=0, maximum=1),
        seed=arguments.integer("seed", None, minimum=0, maximum=2**63 - 1),
        stop_strings=arguments.texts("stop"),
        ignore_eos=arguments.boolean("ignore_eos", False),
        repetition_penalty=arguments.number("repetition_penalty", None, minimum=0.01, maximum=100),
        presence_penalty=arguments.number("presence_penalty", None, minimum=-2, maximum=2),
        frequency_penalty=arguments.number("frequency_penalty", None, minimum=-2, maximum=2),
        logit_bias=arguments.biases("logit_bias"),
        logprobs=arguments.integer("logprobs", None, minimum=0, maximum=20),
        ngram_speculation=arguments.integer("ngram_speculation", None, minimum=0, maximum=32),
    )


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def _is_texts(value: Any) -> bool:
    values = [value] if isinstance(value, str) else value
    return isinstance(values, list) and all(isinstance(v, str) and v for v in values)


def _is_biases(value: Any) -> bool:
    return isinstance(value, dict) and all(
        token.isascii() and token.isdigit() and _is_number(bias) and abs(bias) <= 100
        for token, bias in value.items()
    )


def _is_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _within(
    value: float, minimum: float | None, maximum: float | None, above: float | None = None
) -> bool:
    if minimum is not None and value < minimum:
        return False
    if above is not None and value <= above:
        return False
    return maximum is None or value <= maximum


def _bounds(minimum: float | None, maximum: float | None, above: float | None = None) -> str:
    parts = [] if minimum is None else [f"at least {minimum}"]
    parts += [] if above is None else [f"above {above}"]
    parts += [] if maximum is None else [f"at most {maximum}"]
    return " " + " and ".join(parts) if parts else ""


def _kind(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."
