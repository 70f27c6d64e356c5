"""`pie.toml`: who an inferlet is and what it asks for. Unknown keys are refused by name."""

from __future__ import annotations

import difflib
import re
import tomllib
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

FILE_NAME = "pie.toml"

NAME = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
_VERSION = r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$"

_LABEL = r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?"
_HOST = rf"(\*|(\*\.)?{_LABEL}(\.{_LABEL})*|\[[0-9a-f:]+(\.[0-9]+){{0,3}}\])"
HOST_RULE = rf"^{_HOST}(:(\*|[1-9][0-9]{{0,4}}))?$"
TOOL_RULE = r"^(\*|[A-Za-z0-9_-]+)(/(\*|[A-Za-z0-9_./-]+))?$"

Name = Annotated[str, Meta(pattern=NAME, max_length=64)]
Version = Annotated[str, Meta(pattern=_VERSION, max_length=64)]

HOST_RULE_WORDS = (
    "a host in lower-case letters such as api.example.com, *.example.org or *, "
    "with :PORT or :* for other ports than 80 and 443"
)
TOOL_RULE_WORDS = "an MCP server, SERVER/TOOL, or *"
HostRule = Annotated[str, Meta(pattern=HOST_RULE, max_length=300, title=HOST_RULE_WORDS)]
ToolRule = Annotated[str, Meta(pattern=TOOL_RULE, max_length=300, title=TOOL_RULE_WORDS)]

Contract = Literal["chat", "completion"]
"""Which requests of the OpenAI-compatible endpoint a program answers."""

_WORDS = {
    HOST_RULE: HOST_RULE_WORDS,
    TOOL_RULE: TOOL_RULE_WORDS,
    NAME: "lower-case letters, digits and single dashes, starting with a letter",
    _VERSION: "a version such as 1.0.0",
}


class ManifestError(Exception):
    """The manifest cannot be used; `line` is where, when that is known."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Name | None = None
    """None leaves it to the file's name."""
    version: Version = ""
    description: Annotated[str, Meta(max_length=500)] = ""
    contract: Contract | None = None
    """It speaks the event contract, so that its name is a model name. None: it is no model."""


class Grants(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the program asks for at most. None: whatever the operator allows."""

    memory_mb: Annotated[int, Meta(ge=1)] | None = None
    cpu_s: Annotated[float, Meta(gt=0)] | None = None
    http: Annotated[tuple[HostRule, ...], Meta(max_length=64)] = ()
    """Hosts to reach; what is not listed stays out of reach, whatever the operator allows."""
    tools: Annotated[tuple[ToolRule, ...], Meta(max_length=64)] = ()
    """MCP servers and tools to use; likewise."""
    priority_max: Annotated[int, Meta(ge=0)] | None = None


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    inferlet: Identity = Identity()
    grants: Grants = Grants()


def parse(data: bytes) -> Manifest:
    """Reads the text of a `pie.toml`, which may be empty; every refusal is a `ManifestError`."""
    try:
        raw = tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise ManifestError(f"not UTF-8 text: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(error) from None
    _refuse_unknown(raw, data.decode())
    try:
        return msgspec.convert(raw, Manifest)
    except msgspec.ValidationError as error:
        raise _value_error(str(error), data.decode()) from None


def _syntax_error(error: tomllib.TOMLDecodeError) -> ManifestError:
    found = re.search(r" \(at line (\d+), column \d+\)$", str(error))
    if found is None:
        return ManifestError(f"not TOML: {error}")
    return ManifestError(f"not TOML: {str(error)[: found.start()]}", int(found[1]))


def _refuse_unknown(raw: dict[str, Any], text: str) -> None:
    tables: dict[str, type[msgspec.Struct]] = {"inferlet": Identity, "grants": Grants}
    for key, value in raw.items():
        if key not in tables:
            raise _unknown(key, [f"[{table}]" for table in tables], _line_of(text, key), "")
        if not isinstance(value, dict):
            raise ManifestError(f"`{key}` must be a table: [{key}]", _line_of(text, key))
        known = [field.name for field in msgspec.structs.fields(tables[key])]
        for inner in value:
            if inner not in known:
                raise _unknown(inner, known, _line_of(text, inner, key), f" in [{key}]")


def _unknown(key: str, known: list[str], line: int | None, place: str) -> ManifestError:
    close = difflib.get_close_matches(key, [name.strip("[]") for name in known], 1)
    hint = f"did you mean `{close[0]}`?" if close else f"allowed are {', '.join(known)}"
    return ManifestError(f"unknown key `{key}`{place}; {hint}", line)


def _value_error(message: str, text: str) -> ManifestError:
    """msgspec says `... - at `$.grants.cpu_s``; an author reads `cpu_s`."""
    problem, _, path = message.partition(" - at `$.")
    for pattern, words in _WORDS.items():
        problem = problem.replace(f"`str` matching regex {pattern!r}", words)
    problem = problem[:1].lower() + problem[1:]
    table, _, key = path.rstrip("`").partition(".")
    name = f"`{key}` in [{table}]: " if key else ""
    line = _line_of(text, key.partition("[")[0], table) if key else None
    return ManifestError(f"{name}{problem}", line)


def _line_of(text: str, key: str, table: str | None = None) -> int | None:
    """The line where `key` stands, inside `[table]` when given."""
    inside = table is None
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(rf"\s*\[\s*{re.escape(key if table is None else table)}\s*\]", line):
            inside = True
            if table is None:
                return number
        elif inside and re.match(rf"""\s*["']?{re.escape(key)}["']?\s*=""", line):
            return number
    return None
