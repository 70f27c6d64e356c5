"""A model that uses tools until it has an answer; `docs/inferlets.md` says what it takes."""

from typing import Any

from inferlet import (
    Arguments,
    Chat,
    Exhausted,
    Model,
    PieError,
    Reply,
    ToolCall,
    generate_options,
    session,
    tools,
)

MOST_SAID = 4000
"""Characters of a result that the model is shown."""


def run(input: dict[str, Any]) -> dict[str, Any]:
    arguments = Arguments(input)
    messages = arguments.items("messages")
    servers = arguments.texts("servers")
    max_turns = arguments.integer("max_turns", 8, minimum=1)
    options = generate_options(arguments)
    arguments.finish()

    offered = [tool for server in servers or [None] for tool in tools.list_tools(server)]
    chat = Chat(Model.open(), messages, tools=[tool.openai() for tool in offered])
    done: list[dict[str, Any]] = []
    for _ in range(max_turns):
        reply = chat.reply(**options)
        if not reply.tool_calls:
            return answer(reply, done)
        for asked in reply.tool_calls:
            result = use(asked, offered)
            chat.tool(asked, result["text"])
            done.append(result)
    raise Exhausted(f"no answer within max_turns={max_turns} turns")


def use(asked: ToolCall, offered: list[tools.Tool]) -> dict[str, Any]:
    """What the tool said. An error is something to read, too: the model may try again."""
    session.send_event("tool_call", id=asked.id, name=asked.name, arguments=asked.arguments)
    try:
        result = tools.call_as_asked(asked, offered)
        text, failed = result.text, result.is_error
    except PieError as error:
        text, failed = f"{error.code}: {error.message}", True
    session.send_event("tool_result", id=asked.id, text=text, is_error=failed)
    return {"name": asked.name, "arguments": asked.arguments, "text": text[:MOST_SAID]}


def answer(reply: Reply, done: list[dict[str, Any]]) -> dict[str, Any]:
    session.send_event("delta", text=reply.text)
    session.send_event("usage", **reply.usage.to_dict())
    return {"text": reply.text, "finish_reason": reply.finish_reason, "tool_calls": done}
