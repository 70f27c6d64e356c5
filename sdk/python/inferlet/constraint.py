"""Grammars that a generation has to keep to, token by token."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from inferlet import _host
from inferlet._handle import Handle
from inferlet.errors import InvalidArgument
from inferlet.model import Model


class Constraint(Handle):
    """A place in a grammar. Give it to `generate`, which follows a copy of it from there, or
    follow it yourself: `mask` says what may come next, `accept` goes on.

    Making one raises `InvalidArgument` with the reason and the place when the source is not
    understood, `Timeout` when it is too much to compile.
    """

    @classmethod
    def json(cls, model: Model) -> Constraint:
        """Any JSON value."""
        return cls(_host.call(_host.constraints.Constraint.json, model.handle))

    @classmethod
    def json_schema(cls, model: Model, schema: Any) -> Constraint:
        """JSON that is valid under a schema: a dict, JSON text, or a class of pydantic's kind."""
        text = _schema_text(schema)
        return cls(_host.call(_host.constraints.Constraint.json_schema, model.handle, text))

    @classmethod
    def regex(cls, model: Model, pattern: str) -> Constraint:
        """A text that matches as a whole, in the syntax of Rust's `regex` crate."""
        return cls(_host.call(_host.constraints.Constraint.regex, model.handle, pattern))

    @classmethod
    def lark(cls, model: Model, grammar: str) -> Constraint:
        """A text that the context-free grammar derives from its rule `start`."""
        return cls(_host.call(_host.constraints.Constraint.lark, model.handle, grammar))

    @classmethod
    def choice(cls, model: Model, options: Sequence[str]) -> Constraint:
        """One of these texts."""
        made = _host.call(_host.constraints.Constraint.choice, model.handle, list(options))
        return cls(made)

    @classmethod
    def response_format(
        cls, model: Model, response_format: Mapping[str, Any] | None
    ) -> Constraint | None:
        """What OpenAI's parameter of that name asks for; None for text."""
        asked = dict(response_format or {"type": "text"})
        match asked:
            case {"type": "text"}:
                return None
            case {"type": "json_object"}:
                return cls.json_schema(model, {"type": "object"})
            case {"type": "json_schema", "json_schema": {"schema": schema}}:
                return cls.json_schema(model, schema)
        raise InvalidArgument(
            '`response_format` must be {"type": "text"}, {"type": "json_object"} or '
            '{"type": "json_schema", "json_schema": {"schema": {...}}}'
        )

    def fork(self) -> Constraint:
        """A second one at the same place; the two go separate ways from here."""
        return Constraint(_host.call(self.handle.fork))

    def accept(self, tokens: int | Sequence[int]) -> None:
        """Goes on by a token or several: all of them, or `InvalidArgument` and none."""
        given = [tokens] if isinstance(tokens, int) else list(tokens)
        _host.call(self.handle.accept, given)

    def rollback(self, num_tokens: int) -> None:
        """Takes back the last ones accepted."""
        _host.call(self.handle.rollback, num_tokens)

    def mask(self) -> list[int]:
        """Which tokens may come next, as lengths of runs: first so many that may not, then so many
        that may, and so on. End tokens may where the text may end."""
        return list(_host.call(self.handle.mask))

    def allowed(self) -> list[int]:
        """The tokens that may come next."""
        tokens: list[int] = []
        start = 0
        for i, length in enumerate(self.mask()):
            if i % 2:
                tokens.extend(range(start, start + length))
            start += length
        return tokens

    @property
    def complete(self) -> bool:
        """The text is whole, and nothing may follow it."""
        return bool(self.handle.complete())


def _schema_text(schema: Any) -> str:
    if isinstance(schema, str):
        return schema
    described = getattr(schema, "model_json_schema", None)
    if described is not None:
        schema = described()
    try:
        return json.dumps(schema)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"the schema is not JSON: {error}") from None
