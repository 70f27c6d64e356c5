"""Answers a conversation; `docs/inferlets.md` lists its options, events and result."""

from typing import Any

from inferlet import Arguments, Chat, Constraint, Model, Reply, ToolCall, generate_options, session


def run(input: dict[str, Any]) -> dict[str, Any]:
    arguments = Arguments(input)
    messages = arguments.items("messages")
    tools = arguments.items("tools", None)
    stream = arguments.boolean("stream", False)
    response_format = arguments.mapping("response_format", None)
    options = generate_options(arguments)
    arguments.finish()

    model = Model.open()
    chat = Chat(model, messages, tools=tools)
    constraint = Constraint.response_format(model, response_format)
    options["chunk_tokens"] = 1 if stream else 0
    reply = Reply()
    for piece in chat.stream(reply, constraint=constraint, **options):
        if stream:
            send(piece)
    if stream:
        session.send_event("usage", **reply.usage.to_dict())
    answer = result(reply)
    if options.get("logprobs") is not None:
        answer["logprobs"] = reply.logprobs
    return answer


def send(piece: str | ToolCall) -> None:
    if isinstance(piece, str):
        session.send_event("delta", text=piece)
    else:
        session.send_event("tool_call", id=piece.id, name=piece.name, arguments=piece.arguments)


def result(reply: Reply) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "text": reply.text,
        "tokens": reply.tokens,
        "finish_reason": reply.finish_reason,
    }
    if reply.tool_calls:
        answer["tool_calls"] = [call.openai() for call in reply.tool_calls]
        if reply.finish_reason == "stop":
            answer["finish_reason"] = "tool_calls"
    return answer
