"""A host for the guest package without a component: just enough to follow what it calls."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

CONSTRAINTS = ("json", "json_schema", "regex", "lark", "choice")


class Err(Exception):
    """What the generated bindings raise for a WIT error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__()
        self.value = SimpleNamespace(code=code, message=message)


def _reason(name: str, *value: object) -> Any:
    """An instance of a class of that name, as the bindings have one per case."""
    made = type(f"FinishReason_{name}", (), {})()
    if value:
        made.value = value[0]
    return made


@dataclass
class FakePie:
    """`answers` are the texts of the next generations; a token is one character."""

    answers: list[list[str]] = field(default_factory=list)
    reason: Any = field(default_factory=lambda: _reason("StopToken", 0))
    inbox: list[Any] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    logged: list[tuple[str, str]] = field(default_factory=list)
    options: list[dict[str, Any]] = field(default_factory=list)
    templates: list[dict[str, Any]] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    adapters: list[str | None] = field(default_factory=list)
    """Of the generations."""
    released: list[str] = field(default_factory=list)
    tools: dict[str, dict[str, str]] = field(default_factory=dict)
    """Server -> tool -> what it says."""
    called: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    saved: dict[str, list[int]] = field(default_factory=dict)
    durable: list[str] = field(default_factory=list)
    told: list[tuple[object, ...]] = field(default_factory=list)
    """What contexts were told of visibility and priority."""
    constraints: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    """Made so far: which kind, and from what."""
    constrained: list[Any] = field(default_factory=list)
    """What each generation was given."""

    def finish_with(self, name: str, *value: object) -> None:
        self.reason = _reason(name, *value)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.sent]

    @property
    def interfaces(self) -> dict[str, Any]:
        pie = self
        return {
            "models": SimpleNamespace(Model=SimpleNamespace(open=lambda name: Model(pie))),
            "contexts": SimpleNamespace(
                Context=SimpleNamespace(create=lambda model: Context(pie, []), open=self._open),
                saved=lambda: sorted(self.saved),
                delete_saved=self._delete_saved,
            ),
            "inference": SimpleNamespace(
                generate=lambda context, options, constraint, adapter: Generation(
                    pie, context, options, constraint, adapter
                )
            ),
            "adapters": SimpleNamespace(
                Adapter=SimpleNamespace(open=lambda model, name: Adapter(pie, name))
            ),
            "constraints": SimpleNamespace(
                Constraint=SimpleNamespace(
                    **{kind: partial(Constraint, pie, kind) for kind in CONSTRAINTS}
                )
            ),
            "session": SimpleNamespace(send=self.sent.append, receive=self._receive),
            "events": SimpleNamespace(wait_any=lambda items, timeout_ms: list(range(len(items)))),
            "tools": SimpleNamespace(
                servers=lambda: sorted(pie.tools),
                list_tools=self._list_tools,
                call_tool=lambda server, name, arguments: ToolCall(pie, server, name, arguments),
            ),
            "runtime": SimpleNamespace(log=lambda *line: self.logged.append(line)),
        }

    def _list_tools(self, server: str) -> str:
        if server not in self.tools:
            raise Err("not-found", f"no MCP server is called {server!r}")
        return json.dumps(
            {"tools": [{"name": name, "inputSchema": {}} for name in self.tools[server]]}
        )

    def _open(self, name: str) -> Context:
        if name not in self.saved:
            raise Err("not-found", f"no context is saved as {name!r}")
        return Context(self, list(self.saved[name]))

    def _delete_saved(self, name: str) -> None:
        del self.saved[name]

    def _receive(self) -> Any:
        return self.inbox.pop(0) if self.inbox else None


@dataclass
class Resource:
    pie: FakePie

    def __exit__(self, *_: object) -> None:
        self.pie.released.append(type(self).__name__)


@dataclass
class Model(Resource):
    def encode(self, text: str, add_special: bool) -> list[int]:
        return [1] * add_special + [ord(char) for char in text]

    def apply_chat_template(self, messages: str, tools: str | None, prompt: bool) -> list[int]:
        read = json.loads(messages)
        self.pie.templates.append({"messages": read, "tools": tools and json.loads(tools)})
        text = "".join(f"{one['role'][0]}:{one['content']}\n" for one in read)
        return [ord(char) for char in text + "a:" * prompt]


@dataclass
class Adapter(Resource):
    name: str


@dataclass
class Context(Resource):
    held: list[int]
    computed: int = 0

    def length(self) -> int:
        return len(self.held)

    def tokens(self, start: int, end: int) -> list[int]:
        if end > len(self.held):
            raise Err("invalid-argument", f"end {end} is past the length {len(self.held)}")
        return self.held[start:end]

    def append(self, tokens: list[int]) -> None:
        self.held += tokens

    def truncate(self, length: int) -> None:
        del self.held[length:]

    def append_text(self, text: str) -> int:
        self.held += [ord(char) for char in text]
        return len(text)

    def model_name(self) -> str:
        return "fake"

    def save(self, name: str, durable: bool) -> None:
        self.pie.saved[name] = list(self.held)
        self.pie.durable += [name] * durable

    def set_visible(self, start: int, end: int, visible: bool) -> None:
        self.pie.told.append((start, end, visible))

    def set_priority(self, priority: int) -> None:
        self.pie.told.append((priority,))

    def flush(self) -> None:
        self.computed = len(self.held)

    def fork(self) -> Context:
        return Context(self.pie, list(self.held))


class Constraint(Resource):
    """Knows nothing of grammars."""

    def __init__(self, pie: FakePie, kind: str, model: Model, *source: Any) -> None:
        super().__init__(pie)
        pie.constraints.append((kind, source))


class Generation(Resource):
    def __init__(
        self,
        pie: FakePie,
        context: Context,
        options: str,
        constraint: Constraint | None,
        adapter: Adapter | None,
    ) -> None:
        super().__init__(pie)
        pie.constrained.append(constraint)
        pie.adapters.append(None if adapter is None else adapter.name)
        self._context = context
        self._chunks = pie.answers.pop(0)
        self._cancelled = False
        pie.options.append(json.loads(options))
        self._num_top = pie.options[-1].get("logprobs")
        pie.prompts.append("".join(map(chr, context.held)))

    def next(self) -> Any:
        if self._cancelled or not self._chunks:
            return None
        text = self._chunks.pop(0)
        tokens = [ord(char) for char in text]
        self._context.held += tokens
        return SimpleNamespace(tokens=tokens, text=text, logprobs=self._logprobs(tokens))

    def relay(self) -> Any:
        """Everything at once."""
        taken = []
        while (chunk := self.next()) is not None:
            taken.append(chunk)
            if chunk.text:
                self.pie.sent.append(json.dumps({"type": "delta", "text": chunk.text}))
        return SimpleNamespace(
            tokens=[token for chunk in taken for token in chunk.tokens],
            text="".join(chunk.text for chunk in taken),
            logprobs=[one for chunk in taken for one in chunk.logprobs],
        )

    def _logprobs(self, tokens: list[int]) -> list[Any]:
        if self._num_top is None:
            return []
        top = [(token, -1.0 - token) for token in range(self._num_top)]
        return [SimpleNamespace(chosen=-0.5, top=top) for _ in tokens]

    def finish(self) -> Any:
        return _reason("Cancelled") if self._cancelled else self.pie.reason

    def usage(self) -> str:
        return json.dumps({"prompt_tokens": 5, "generated_tokens": 7, "newer_key": 1})

    def cancel(self) -> None:
        self._cancelled = True

    def subscribe(self) -> object:
        return object()


class ToolCall(Resource):
    def __init__(self, pie: FakePie, server: str, name: str, arguments: str) -> None:
        super().__init__(pie)
        self._text = pie.tools[server][name]
        pie.called.append((server, name, json.loads(arguments)))

    def get(self) -> str:
        if self._text == "hangs":
            raise Err("timeout", "it has not answered within 60 s")
        return json.dumps({"content": [{"type": "text", "text": self._text}], "isError": False})
