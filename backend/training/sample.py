"""One sample and its text: the chat template in Python, with the learnt parts marked."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from typing import Any

END = "<|im_end|>"
HELD_OUT_SHARE = 16  # one key in this many never appears in training


def is_held_out(key: str) -> bool:
    """Whether a sample with this key belongs to the evaluation; the same on every machine."""
    return zlib.crc32(key.encode()) % HELD_OUT_SHARE == 0


@dataclass(frozen=True)
class Tool:
    name: str
    description: str
    parameters: dict[str, str]  # parameter name -> JSON type

    def as_openai(self) -> dict[str, Any]:
        properties = {name: {"type": kind} for name, kind in self.parameters.items()}
        schema = {"type": "object", "properties": properties, "required": list(self.parameters)}
        function = {"name": self.name, "description": self.description, "parameters": schema}
        return {"type": "function", "function": function}

    def as_line(self) -> str:
        parts = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return json.dumps(parts)


@dataclass(frozen=True)
class Turn:
    role: str  # system, user, assistant, tool
    text: str


@dataclass(frozen=True)
class Sample:
    """`turns` ends with the assistant's; a raw sample is one prompt and one answer, no template."""

    task: str
    key: str  # what the held-out split is made on
    turns: tuple[Turn, ...]
    tools: tuple[Tool, ...] = field(default=())
    raw: bool = False

    def segments(self) -> list[tuple[str, bool]]:
        """The text in order, each piece with whether it is learnt."""
        if self.raw:
            return [(self.turns[0].text, False), (self.turns[1].text + END, True)]
        pieces: list[tuple[str, bool]] = [(self._system(), False)]
        for turn in self._without_system():
            pieces.extend(_turn_pieces(turn))
        return [piece for piece in pieces if piece[0]]

    def prompt(self) -> str:
        """Everything before the last answer."""
        return "".join(text for text, _ in self.segments()[: -1 if self.raw else -2])

    def answer(self) -> str:
        return self.turns[-1].text

    def messages(self) -> list[dict[str, str]]:
        return [{"role": turn.role, "content": turn.text} for turn in self.turns]

    def _system(self) -> str:
        texts = [turn.text for turn in self.turns if turn.role == "system"]
        if self.tools:
            lines = "\n".join(tool.as_line() for tool in self.tools)
            texts.append(f"# Tools\n<tools>\n{lines}\n</tools>")
        text = "\n\n".join(texts)
        return f"<|im_start|>system\n{text}{END}\n" if texts else ""

    def _without_system(self) -> list[Turn]:
        return [turn for turn in self.turns if turn.role != "system"]


def _turn_pieces(turn: Turn) -> list[tuple[str, bool]]:
    if turn.role == "assistant":
        return [("<|im_start|>assistant\n", False), (turn.text + END, True), ("\n", False)]
    if turn.role == "tool":
        body = f"<tool_response>\n{turn.text}\n</tool_response>"
        return [(f"<|im_start|>user\n{body}{END}\n", False)]
    return [(f"<|im_start|>{turn.role}\n{turn.text}{END}\n", False)]


def call_text(name: str, arguments: dict[str, Any]) -> str:
    """A tool call as the model writes it."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"
