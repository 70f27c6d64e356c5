"""Tools of MCP servers that this program has been granted.

`tools` under `[grants]` in pie.toml names servers, or single tools as SERVER/TOOL; the operator
declares the servers and has to allow them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inferlet import _host, _json
from inferlet._handle import Task
from inferlet.errors import NotFound
from inferlet.events import Waitable
from inferlet.tool_calls import ToolCall


@dataclass(frozen=True)
class Tool:
    server: str
    name: str
    description: str
    parameters: dict[str, Any]
    """JSON Schema of its arguments."""

    def openai(self) -> dict[str, Any]:
        """As `Chat(tools=...)` and `Model.apply_chat_template` take it."""
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }
        return {"type": "function", "function": function}


@dataclass(frozen=True)
class ToolResult:
    content: list[dict[str, Any]]
    """Blocks as MCP has them: text, images, resources."""
    structured: Any = None
    """The result as JSON, of tools that declare one."""
    is_error: bool = False
    """The tool itself failed; `text` says why, and a model can read it."""
    raw: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """All blocks of text, a line between each two."""
        return "\n".join(str(one["text"]) for one in self.content if one.get("type") == "text")


class Call(Task):
    """A tool at work; it ends with `result`, `close`, which cancels it, or the program."""

    def __init__(self, handle: Any) -> None:
        super().__init__(handle)
        self._result: ToolResult | None = None

    def result(self) -> ToolResult:
        """Waits for it. That the tool failed is a result; that it was not reached is raised."""
        if self._result is None:
            self._result = _parsed(self._wait())
        return self._result

    def waitable(self) -> Waitable:
        """Ready once the result is there, or the call has failed; not after `result`."""
        return Waitable(self.handle.subscribe())


def _parsed(text: str) -> ToolResult:
    raw = json.loads(text)
    return ToolResult(
        content=raw.get("content", []),
        structured=raw.get("structuredContent"),
        is_error=raw.get("isError", False),
        raw=raw,
    )


def servers() -> list[str]:
    """The servers of which this program may use at least one tool."""
    return list(_host.call(_host.tools.servers))


def list_tools(server: str | None = None) -> list[Tool]:
    """The tools that this program may use, of one server or of all."""
    names = servers() if server is None else [server]
    return [tool for name in names for tool in _listed(name)]


def _listed(server: str) -> list[Tool]:
    found = json.loads(_host.call(_host.tools.list_tools, server))["tools"]
    return [
        Tool(server, one["name"], one.get("description", ""), one.get("inputSchema", {}))
        for one in found
    ]


def start(server: str, name: str, arguments: Mapping[str, Any] | None = None) -> Call:
    """Calls a tool and goes on; several at a time, `events.wait_any` tells which is done."""
    text = _json.dumps(dict(arguments or {}))
    return Call(_host.call(_host.tools.call_tool, server, name, text))


def call(server: str, name: str, arguments: Mapping[str, Any] | None = None) -> ToolResult:
    """Calls a tool and waits for its result."""
    return start(server, name, arguments).result()


def call_as_asked(asked: ToolCall, among: Sequence[Tool]) -> ToolResult:
    """Does what a model asks for; `among` is what it was offered.

    Raises:
        NotFound: no such tool was offered.
    """
    for tool in among:
        if tool.name == asked.name:
            return call(tool.server, tool.name, asked.arguments)
    offered = ", ".join(tool.name for tool in among) or "none"
    raise NotFound(f"there is no tool {asked.name!r}; there are: {offered}")
