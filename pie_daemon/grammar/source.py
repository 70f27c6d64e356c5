"""What programs write down as a constraint, and the grammar of llguidance that it stands for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pie_daemon.errors import PieError
from pie_daemon.grammar.schema import lowered

_WHITESPACE = r"( |\n {0,32})?"
"""Between the parts of a JSON value: what people and programs write, and not for ever more."""
Kind = Literal["json", "json-schema", "regex", "lark", "choice"]


@dataclass(frozen=True, slots=True)
class Source:
    """Equal sources are compiled once."""

    kind: Kind
    text: str = ""
    """Empty for `json`; of `choice` a JSON list."""

    def grammars(self) -> Iterator[str]:
        """What to try in turn, until one compiles.

        Raises:
            PieError: what cannot be read (`invalid-argument`) or enforced (`unsupported`).
        """
        match self.kind:
            case "json":
                yield _of_schema({})
            case "json-schema":
                schema = _parsed(self.text)
                yield _of_schema(schema)
                yield _of_schema(lowered(schema))
            case "regex":
                yield _of_regex(self.text)
            case "lark":
                yield _of_lark(self.text)
            case "choice":
                options = (json.dumps(one, ensure_ascii=False) for one in json.loads(self.text))
                yield _of_lark("start: " + " | ".join(options))


def choice(options: Sequence[str]) -> Source:
    if not options:
        raise PieError("invalid-argument", "a choice needs at least one option")
    return Source("choice", json.dumps(options, ensure_ascii=False))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PieError("invalid-argument", f"the schema is not JSON: {error}") from None


def _of_schema(schema: Any) -> str:
    body = schema if isinstance(schema, dict) else {"allOf": [schema]}
    options = body.get("x-guidance", {})
    options = {"whitespace_pattern": _WHITESPACE, **(options if isinstance(options, dict) else {})}
    grammar = {"json_schema": {**body, "x-guidance": options}}
    return json.dumps({"grammars": [grammar]}, ensure_ascii=False)


def _of_lark(grammar: str) -> str:
    # Never as it is: a text in braces would be read as llguidance's own form.
    return json.dumps({"grammars": [{"lark_grammar": grammar}]})


def _of_regex(pattern: str) -> str:
    from llguidance import LLMatcher

    if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
        # The library would drop it.
        raise PieError("invalid-argument", "the regex ends in the middle of an escape")
    return LLMatcher.grammar_from_regex(pattern)
