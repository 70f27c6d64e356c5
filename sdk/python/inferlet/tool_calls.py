"""Finds `<tool_call>{...}</tool_call>` in text that arrives in pieces."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

OPEN, CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True)
class ToolCall:
    id: str
    name: str
    arguments: dict[str, Any]

    def openai(self) -> dict[str, Any]:
        """The shape in which an assistant message carries it."""
        arguments = json.dumps(self.arguments, ensure_ascii=False)
        function = {"name": self.name, "arguments": arguments}
        return {"id": self.id, "type": "function", "function": function}


class ToolCallParser:
    """`feed` returns the text that is certainly no part of a call; calls gather in `calls`.

    A call whose JSON is broken is handed back as text: nothing the model said is lost.
    """

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []
        self._held = ""

    def feed(self, text: str) -> str:
        self._held += text
        visible = ""
        while (start := self._held.find(OPEN)) >= 0:
            end = self._held.find(CLOSE, start)
            if end < 0:
                visible += self._held[:start]
                self._held = self._held[start:]
                return visible
            visible += self._held[:start] + self._take(self._held[start : end + len(CLOSE)])
            self._held = self._held[end + len(CLOSE) :]
        keep = _overlap(self._held, OPEN)
        cut = len(self._held) - keep
        visible, self._held = visible + self._held[:cut], self._held[cut:]
        return visible

    def close(self) -> str:
        """What was still held back when the text ended."""
        rest, self._held = self._held, ""
        return rest

    def _take(self, block: str) -> str:
        try:
            body = json.loads(block[len(OPEN) : -len(CLOSE)])
            name, arguments = body["name"], body.get("arguments", {})
        except (ValueError, KeyError, TypeError, AttributeError):
            return block
        if not isinstance(name, str) or not isinstance(arguments, dict):
            return block
        self.calls.append(ToolCall(f"call_{len(self.calls)}", name, arguments))
        return ""


class PlainText:
    """A parser where there are no tools to call: all of it is text."""

    calls: Sequence[ToolCall] = ()

    def feed(self, text: str) -> str:
        return text

    def close(self) -> str:
        return ""


def _overlap(text: str, tag: str) -> int:
    """Length of the longest end of `text` that begins `tag`."""
    for length in range(min(len(text), len(tag) - 1), 0, -1):
        if text.endswith(tag[:length]):
            return length
    return 0
