"""llguidance's error texts as one sentence that says where and why."""

from __future__ import annotations

import re

_MAX_CHARS = 300
_KEYS = re.compile(r"Unimplemented keys: \[(.+)\]")
# How llguidance begins what it says about a keyword without naming it.
_KEYWORDS = {
    "Resource ": "$ref",
    "Pointer ": "$ref",
    "Anchor ": "$ref",
    "patternProperty ": "patternProperties",
    "Unknown format": "format",
}
_PLACE = re.compile(r"(?:at )?(\d+)\((\d+)\):\s*")


def first_line(text: str) -> str:
    """The sentence, without the grammar and the parser's state that may follow."""
    return _cut(text.partition("\n")[0].strip())


def place_and_reason(kind: str, text: str) -> str:
    """Of a grammar that does not compile."""
    if kind == "json-schema" and (sentence := _about_schema(text)) is not None:
        return _cut(sentence)
    lines = [line.strip() for line in text.splitlines()]
    place = _PLACE.match(text)
    # A regex error spreads over lines: the pattern, a caret under it, and then the reason.
    error = next((line for line in lines if line.startswith("error: ")), None)
    reason = error.removeprefix("error: ") if error else _PLACE.sub("", lines[0], count=1)
    if place is not None and kind == "lark":
        return _cut(f"line {place[1]}, column {place[2]}: {reason}")
    caret = next((i for i, line in enumerate(text.splitlines()) if line.strip("^ ") == ""), 0)
    at = _pointed_at(text.splitlines(), caret)
    return _cut(f"{reason} (at {at!r})" if at else reason)


def _about_schema(text: str) -> str | None:
    """With the keyword that it is about in front."""
    line = text.partition("\n")[0]
    if (found := _KEYS.match(line)) is not None:
        return f"{found[1].replace(chr(34), chr(39))} cannot be enforced"
    if line.startswith("Unsatisfiable schema"):
        return f"nothing is valid under it ({line.partition(': ')[2]})"
    for beginning, keyword in _KEYWORDS.items():
        if line.startswith(beginning):
            return f"{keyword!r}: {line}"
    return None


def _pointed_at(lines: list[str], caret: int) -> str:
    """What the carets under a pattern point at."""
    if caret == 0 or "^" not in lines[caret]:
        return ""
    start, end = lines[caret].index("^"), lines[caret].rindex("^") + 1
    return lines[caret - 1][start : max(end, start + 12)].strip()


def _cut(line: str) -> str:
    return line if len(line) <= _MAX_CHARS else line[: _MAX_CHARS - 3] + "..."
