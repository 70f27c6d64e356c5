"""Messages and tools of a chat: checked, and brought into the one shape that programs read."""

from __future__ import annotations

import json
import re
from typing import Any

from pie_daemon.gateway.errors import invalid
from pie_daemon.gateway.fields import Fields

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_ALLOWED_ROLES = "one of " + ", ".join(_ROLES)
_FUNCTION_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NO_OTHER_PARTS = "a string or a list of text parts: images, sound and files cannot be read here"
# What clients hand back when they append an answer as it came.
_OF_ANSWERS = ("refusal", "annotations", "audio", "function_call")


def read_messages(fields: Fields) -> list[dict[str, Any]]:
    items = fields.items("messages")
    if not items:
        raise fields.missing("messages", "a list of messages, not empty")
    return [_message(item, f"messages[{index}]") for index, item in enumerate(items)]


def _object(item: Any, where: str) -> Fields:
    if not isinstance(item, dict):
        raise invalid(f"`{where}` must be an object", where)
    return Fields(item, where)


def _message(item: Any, where: str) -> dict[str, Any]:
    fields = _object(item, where)
    role = fields.take("role", lambda v: isinstance(v, str) and v in _ROLES, _ALLOWED_ROLES)
    if role is None:
        raise fields.missing("role", _ALLOWED_ROLES)
    message: dict[str, Any] = {"role": _ROLES[role], "content": _content(fields)}
    if (name := fields.text("name")) is not None:
        message["name"] = name
    if role == "assistant":
        _of_an_answer(fields, message)
    elif message["content"] is None:
        raise fields.missing("content", _NO_OTHER_PARTS)
    if role == "tool":
        message["tool_call_id"] = fields.needed_text("tool_call_id")
    fields.finish()
    return message


def _of_an_answer(fields: Fields, message: dict[str, Any]) -> None:
    for key in _OF_ANSWERS:
        fields.take(key, lambda value: not value, "null or empty")
    calls = fields.items("tool_calls")
    if calls:
        where = fields.param("tool_calls")
        message["tool_calls"] = [_call(call, f"{where}[{i}]") for i, call in enumerate(calls)]


def _content(fields: Fields) -> str | None:
    content: str | list[Any] | None = fields.take(
        "content", lambda v: isinstance(v, (str, list)), _NO_OTHER_PARTS
    )
    if not isinstance(content, list):
        return content
    where = fields.param("content")
    return "".join(_part(part, f"{where}[{index}]") for index, part in enumerate(content))


def _part(item: Any, where: str) -> str:
    fields = _object(item, where)
    if fields.take("type", lambda v: v == "text", '"text"; ' + _NO_OTHER_PARTS) is None:
        raise fields.missing("type", '"text"')
    text = fields.needed_text("text")
    fields.finish()
    return text


def _call(item: Any, where: str) -> dict[str, Any]:
    """A call that the assistant has made in an earlier turn."""
    fields = _object(item, where)
    call_id = fields.needed_text("id")
    fields.only("type", "function")
    fields.ignore(("index",))
    inner = fields.mapping("function")
    if inner is None:
        raise fields.missing("function", "an object with name and arguments")
    function = Fields(inner, fields.param("function"))
    called = {"name": function.needed_text("name"), "arguments": _arguments(function)}
    function.finish()
    fields.finish()
    return {"id": call_id, "type": "function", "function": called}


def _arguments(function: Fields) -> str:
    text = function.text("arguments") or "{}"
    try:
        is_object = isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise function.wrong("arguments", "the JSON text of an object")
    return text


def read_tools(fields: Fields) -> list[dict[str, Any]] | None:
    """The tools that the model is told of; None where it is told of none."""
    items = fields.items("tools")
    tools = [_tool(item, f"tools[{index}]") for index, item in enumerate(items or [])]
    choice = fields.take("tool_choice", lambda v: isinstance(v, (str, dict)), '"auto" or "none"')
    # A client may wish for one call at a time; that is a matter of luck until it can be enforced.
    fields.only("parallel_tool_calls", True)
    if choice not in (None, "auto", "none"):
        raise invalid(
            '`tool_choice` must be "auto" or "none": no program here can force the model to call '
            "a tool",
            "tool_choice",
            "unsupported_value",
        )
    return tools if tools and choice != "none" else None


def _tool(item: Any, where: str) -> dict[str, Any]:
    fields = _object(item, where)
    if fields.only("type", "function") is None:
        raise fields.missing("type", '"function"')
    inner = fields.mapping("function")
    if inner is None:
        raise fields.missing("function", "an object with a name")
    function = Fields(inner, fields.param("function"))
    name = function.needed_text("name")
    if not _FUNCTION_NAME.fullmatch(name):
        raise function.wrong("name", "1 to 64 letters, digits, dots, dashes and underscores")
    tool: dict[str, Any] = {"name": name}
    if (description := function.text("description")) is not None:
        tool["description"] = description
    tool["parameters"] = function.mapping("parameters") or {"type": "object", "properties": {}}
    if function.flag("strict"):
        param = function.param("strict")
        why = "arguments are not held to their schema here"
        raise invalid(f"`{param}` must be false: {why}", param, "unsupported_value")
    function.finish()
    fields.finish()
    return {"type": "function", "function": tool}
