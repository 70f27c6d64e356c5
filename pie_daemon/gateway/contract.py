"""The event contract from the outside: what a program sends and returns, read with suspicion.

Messages are JSON objects with a `type`: `delta` (text), `tool_call` (name, arguments). Other types
and other messages are the program's own affair. The result is an object with `text`, or a string.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pie_daemon.gateway.errors import ApiError, failed
from pie_daemon.runtime.events import Event
from pie_daemon.runtime.outcome import Outcome, Usage

_FINISH_REASONS = {
    "stop": "stop",
    "length": "length",
    "budget": "length",
    "tool_calls": "tool_calls",
}


class TokenLogprobs(msgspec.Struct, frozen=True):
    chosen: float
    top: list[tuple[int, float]] = []


class Delta(msgspec.Struct, frozen=True, tag_field="type", tag="delta"):
    """A piece of text, with its tokens when logprobs were asked for."""

    text: str
    tokens: list[int] = []
    logprobs: list[TokenLogprobs] = []


class Call(msgspec.Struct, frozen=True, tag_field="type", tag="tool_call"):
    name: str
    arguments: dict[str, Any] | str = ""
    id: str = ""


class _Function(msgspec.Struct, frozen=True):
    name: str
    arguments: dict[str, Any] | str = ""


class _ResultCall(msgspec.Struct, frozen=True):
    function: _Function
    id: str = ""


class _Result(msgspec.Struct, frozen=True):
    text: str = ""
    finish_reason: str | None = None
    tokens: list[int] = []
    logprobs: list[TokenLogprobs] = []
    tool_calls: list[_ResultCall] = []


class End(msgspec.Struct, frozen=True):
    """The program has ended well; whatever of its answer was not sent before is here."""

    rest: list[Delta | Call]
    finish_reason: str
    usage: Usage


Part = Delta | Call | End

_messages = msgspec.json.Decoder(Delta | Call)


class Reader:
    """Events of one instance -> parts of its answer, the last one an `End`."""

    def __init__(self, program: str, max_answer_bytes: int) -> None:
        self._program = program
        self._left_bytes = max_answer_bytes
        self._num_deltas = 0
        self._num_calls = 0

    def read(self, event: Event) -> Part | None:
        """ApiError when the program has failed or broken the contract."""
        if event.kind == "outcome":
            return self._end(msgspec.json.decode(event.data, type=Outcome))
        if event.kind != "message":
            return None
        try:
            part: Delta | Call = _messages.decode(event.data)
        except (msgspec.DecodeError, RecursionError):
            return None
        self._spend(len(event.data))
        self._count(part)
        return part

    def _spend(self, size_bytes: int) -> None:
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise ApiError(
                500, f"the program {self._program!r} said more than gateway.max_answer_bytes"
            )

    def _count(self, part: Delta | Call) -> None:
        self._num_deltas += isinstance(part, Delta)
        self._num_calls += isinstance(part, Call)

    def _end(self, outcome: Outcome) -> End:
        if outcome.status != "ok":
            raise failed(outcome.code, outcome.message)
        result = self._result(outcome.result or "null")
        rest: list[Delta | Call] = []
        if not self._num_deltas and (result.text or result.tokens):
            rest.append(Delta(result.text, result.tokens, result.logprobs))
        if not self._num_calls:
            rest += [
                Call(call.function.name, call.function.arguments, call.id)
                for call in result.tool_calls
            ]
        if rest:
            self._spend(len(outcome.result or ""))
        for part in rest:
            self._count(part)
        return End(rest, self._reason(result), outcome.usage)

    def _result(self, text: str) -> _Result:
        try:
            found = msgspec.json.decode(text, type=_Result | str | None)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ApiError(
                500,
                f"the program {self._program!r} broke the event contract; its result must be an "
                f"object with `text`, or a string: {error}",
            ) from None
        return found if isinstance(found, _Result) else _Result(found or "")

    def _reason(self, result: _Result) -> str:
        if result.finish_reason is None:
            return "tool_calls" if self._num_calls else "stop"
        return _FINISH_REASONS.get(result.finish_reason, "stop")
