"""Answers a conversation; `docs/inferlets.md` lists its options, events and result."""

from typing import Any

from inferlet import Arguments, Chat, Constraint, Model, Reply, ToolCall, generate_options, session


def run(input: dict[str, Any]) -> dict[str, Any]:
    arguments = Arguments(input)
    model = arguments.text("model", None)
    messages = arguments.items("messages")
    tools = arguments.items("tools", None)
    stream = arguments.boolean("stream", False)
    response_format = arguments.mapping("response_format", None)
    options = generate_options(arguments)
    arguments.finish()

    opened = Model.open(model)
    chat = Chat(opened, messages, tools=tools)
    constraint = Constraint.response_format(opened, response_format)
    options["chunk_tokens"] = 1 if stream else 0
    wants_logprobs = options.get("logprobs") is not None
    if stream and tools is None and not wants_logprobs:
        reply = chat.relay(constraint=constraint, **options)
    else:
        reply = Reply()
        sent = 0  # tokens
        for piece in chat.stream(reply, constraint=constraint, **options):
            if stream:
                send(piece, logprobs(reply, sent) if wants_logprobs else {})
            sent = len(reply.tokens)
    if stream:
        session.send_event("usage", **reply.usage.to_dict())
    answer = result(reply)
    return {**answer, "logprobs": reply.logprobs} if wants_logprobs else answer


def send(piece: str | ToolCall, more: dict[str, Any]) -> None:
    if isinstance(piece, str):
        session.send_event("delta", text=piece, **more)
    else:
        session.send_event("tool_call", id=piece.id, name=piece.name, arguments=piece.arguments)


def logprobs(reply: Reply, start: int) -> dict[str, Any]:
    """Of the tokens that came since the last piece."""
    return {"tokens": reply.tokens[start:], "logprobs": reply.logprobs[start:]}


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
