"""Conversations: messages in the OpenAI shape, the model's template, tool calls."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Unpack

from inferlet import session
from inferlet.adapter import Adapter
from inferlet.constraint import Constraint
from inferlet.context import Context, GenerateOptions
from inferlet.errors import InvalidArgument
from inferlet.generation import FinishReason, TokenLogprobs, Usage
from inferlet.model import Model
from inferlet.tool_calls import PlainText, ToolCall, ToolCallParser

ROLES = ("system", "user", "assistant", "tool")


@dataclass
class Reply:
    """What the model said in one turn; filled while `Chat.stream` runs, whole when it ends."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    """One per token; empty unless the option `logprobs` was given."""
    tool_calls: list[ToolCall] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    usage: Usage = field(default_factory=Usage)


class Chat:
    """A conversation that keeps its KV cache from turn to turn."""

    def __init__(
        self,
        model: Model,
        messages: Sequence[Mapping[str, Any]] = (),
        *,
        system: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        adapter: Adapter | None = None,
    ) -> None:
        self.model = model
        self.adapter = adapter
        self.tools = tools
        self.messages: list[dict[str, Any]] = []
        self._context: Context | None = None
        if system is not None:
            self.system(system)
        for message in messages:
            self.add(message)

    def system(self, text: str) -> Chat:
        return self.add({"role": "system", "content": text})

    def user(self, text: str) -> Chat:
        return self.add({"role": "user", "content": text})

    def assistant(self, text: str) -> Chat:
        return self.add({"role": "assistant", "content": text})

    def tool(self, call: ToolCall, result: Any) -> Chat:
        """The result of a tool call, for the model to read in the next turn."""
        content = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
        message = {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": content}
        return self.add(message)

    def add(self, message: Mapping[str, Any]) -> Chat:
        """Any message in the OpenAI shape."""
        self.messages.append(_checked(message, len(self.messages)))
        return self

    def tokens(self, *, add_generation_prompt: bool = True) -> list[int]:
        """The whole conversation through the model's template."""
        return self.model.apply_chat_template(
            self.messages, tools=self.tools, add_generation_prompt=add_generation_prompt
        )

    def reply(
        self, *, constraint: Constraint | None = None, **options: Unpack[GenerateOptions]
    ) -> Reply:
        """Lets the model answer, adds the answer to the conversation and returns it."""
        reply = Reply()
        options.setdefault("chunk_tokens", 0)
        for _ in self.stream(reply, constraint=constraint, **options):
            pass
        return reply

    def stream(
        self,
        reply: Reply | None = None,
        *,
        constraint: Constraint | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Iterator[str | ToolCall]:
        """Pieces of text and tool calls as they come; the whole gathers in `reply`, its tokens
        and logprobs up to each piece. Without `tools` there are no calls, whatever the text is."""
        reply = Reply() if reply is None else reply
        parser = PlainText() if self.tools is None else ToolCallParser()
        prompted = self._prompted()
        with prompted.generate(
            constraint=constraint, adapter=self.adapter, **options
        ) as generation:
            for chunk in generation:
                reply.tokens += chunk.tokens
                reply.logprobs += chunk.logprobs
                yield from _pieces(parser, parser.feed(chunk.text), reply)
            yield from _pieces(parser, parser.close(), reply)
            reply.usage, reply.finish_reason = generation.usage, generation.finish_reason
        self._remember(reply)

    def relay(
        self, *, constraint: Constraint | None = None, **options: Unpack[GenerateOptions]
    ) -> Reply:
        """Like `reply`, while the client gets the text as it comes, in events `delta`. Pie sends
        them itself (`Generation.relay`); with `tools` the program does, to keep calls out of the
        text."""
        reply = Reply()
        if self.tools is not None:
            for piece in self.stream(reply, constraint=constraint, **options):
                if isinstance(piece, str):
                    session.send_event("delta", text=piece)
            return reply
        with self._prompted().generate(
            constraint=constraint, adapter=self.adapter, **options
        ) as generation:
            generation.relay()
            reply.text, reply.tokens = generation.text, generation.tokens
            reply.logprobs = generation.logprobs
            reply.usage, reply.finish_reason = generation.usage, generation.finish_reason
        self._remember(reply)
        return reply

    def close(self) -> None:
        """Gives the KV cache back; the messages stay, and a next turn starts a new one."""
        if self._context is not None:
            self._context.close()
            self._context = None

    def _prompted(self) -> Context:
        """The context, holding exactly the conversation so far; what it held already is kept."""
        wanted = self.tokens()
        if self._context is None:
            self._context = Context(self.model)
        context = self._context
        kept = _common_prefix(context.tokens(), wanted[:-1])  # one is left to decode from
        if kept < context.length:
            context.truncate(kept)
        context.append(wanted[kept:])
        return context

    def _remember(self, reply: Reply) -> None:
        message: dict[str, Any] = {"role": "assistant", "content": reply.text}
        if reply.tool_calls:
            message["tool_calls"] = [call.openai() for call in reply.tool_calls]
        self.add(message)


def _pieces(
    parser: ToolCallParser | PlainText, text: str, reply: Reply
) -> Iterator[str | ToolCall]:
    if text:
        reply.text += text
        yield text
    for call in parser.calls[len(reply.tool_calls) :]:
        reply.tool_calls.append(call)
        yield call


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    length = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        length += 1
    return length


def _checked(message: Mapping[str, Any], index: int) -> dict[str, Any]:
    role = message.get("role")
    if role not in ROLES:
        raise InvalidArgument(
            f"`messages[{index}].role` must be one of {', '.join(ROLES)}, not {role!r}"
        )
    checked = {**message, "content": _content(message.get("content"), index)}
    if "tool_calls" in message:
        checked["tool_calls"] = [_plain_call(call, index) for call in message["tool_calls"] or []]
    return checked


def _content(content: Any, index: int) -> str:
    """Text; a list of text parts is joined, other kinds of parts are refused."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise InvalidArgument(
                f"`messages[{index}].content` must be a string or a list of text parts"
            )
    return "".join(str(part.get("text", "")) for part in parts)


def _plain_call(call: Any, index: int) -> dict[str, Any]:
    """Templates want `arguments` as an object; the OpenAI shape carries it as a JSON string."""
    try:
        function = dict(call["function"])
        if isinstance(function.get("arguments"), str):
            function["arguments"] = json.loads(function["arguments"] or "{}")
    except (KeyError, TypeError, ValueError):
        raise InvalidArgument(
            f"`messages[{index}].tool_calls` must be calls in the OpenAI shape: "
            '{"id", "type": "function", "function": {"name", "arguments"}}'
        ) from None
    return {**call, "function": function}
