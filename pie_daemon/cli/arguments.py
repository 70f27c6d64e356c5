"""`--key value` after `--` becomes the JSON that a program takes as its input."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pie_daemon.cli.exits import UsageError

_NAME = re.compile(r"--([A-Za-z][A-Za-z0-9_-]*)(?:=(.*))?", re.DOTALL)


def program_input(given: str | None, arguments: Sequence[str]) -> str:
    """The input as JSON text. `given` is JSON, `-` for standard input, or `@FILE`."""
    options = parse_options(arguments)
    if given is None:
        return json.dumps(options, ensure_ascii=False)
    text = _read(given)
    base = _decode(text)
    if not options:
        return text
    if not isinstance(base, dict):
        raise UsageError("--input has to be a JSON object when options follow after --")
    return json.dumps(base | options, ensure_ascii=False)


def parse_options(arguments: Sequence[str]) -> dict[str, Any]:
    """`--max-tokens 5 --stream` -> {"max_tokens": 5, "stream": true}; repeated: a list."""
    found: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        name, value = _take(rest)
        if name not in found:
            found[name] = value
        elif isinstance(found[name], list):
            found[name] = [*found[name], value]
        else:
            found[name] = [found[name], value]
    return found


def _take(rest: list[str]) -> tuple[str, Any]:
    word = rest.pop(0)
    match = _NAME.fullmatch(word)
    if match is None:
        raise UsageError(f"expected --key value after --, got {word!r}")
    name, text = match[1].replace("-", "_"), match[2]
    if text is not None:
        return name, infer(text)
    if rest and not rest[0].startswith("--"):
        return name, infer(rest.pop(0))
    return name, True


def infer(text: str) -> Any:
    """Numbers, true, false, null, lists, objects and quoted text as in JSON; else the text."""
    if text != text.strip():
        return text
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return text


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _read(given: str) -> str:
    if given == "-":
        return sys.stdin.read()
    if given.startswith("@"):
        try:
            return Path(given[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--input {given}: cannot be read: {error}") from error
    return given


def _decode(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"--input is no JSON: {error}") from error
