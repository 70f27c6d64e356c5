"""Answers in OpenAI's shapes: chunks of a stream, and whole responses."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

from pie_daemon.gateway import logprobs
from pie_daemon.gateway.catalogue import Target
from pie_daemon.gateway.contract import Call, Delta, End, Part
from pie_daemon.gateway.logprobs import Drawn
from pie_daemon.gateway.request import Ask
from pie_daemon.runtime.outcome import Usage

_COUNTED_ID = re.compile(r"(call_\d+)?")
"""Ids that are only unique within one answer."""


class Choice:
    """One choice while it grows. `take` returns what a part adds to it, piece by piece."""

    def __init__(self, index: int, instance_id: str, ask: Ask, target: Target) -> None:
        self.index = index
        self.text = ""
        self.calls: list[dict[str, Any]] = []
        self.drawn: list[Any] = []
        self.end: End | None = None
        self._instance_id = instance_id
        self._wants_logprobs = ask.wants_logprobs
        self._target = target

    def take(self, part: Part) -> Iterator[Delta | dict[str, Any]]:
        """Texts, and calls in the shape of a message."""
        if isinstance(part, End):
            for piece in part.rest:
                yield from self.take(piece)
            self.end = part
        elif isinstance(part, Delta):
            self.text += part.text
            self.drawn += self.drawn_by(part)
            yield part
        else:
            call = self._call(part)
            self.calls.append(call)
            yield call

    def drawn_by(self, delta: Delta) -> Drawn:
        """Without end tokens, which are no part of the text."""
        if not self._wants_logprobs:
            return []
        pairs = zip(delta.tokens, delta.logprobs, strict=False)
        return [(token, one) for token, one in pairs if token not in self._target.eos_tokens]

    def _call(self, call: Call) -> dict[str, Any]:
        counted = _COUNTED_ID.fullmatch(call.id) is not None
        call_id = f"call_{self._instance_id}_{len(self.calls)}" if counted else call.id
        given = call.arguments
        arguments = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
        function = {"name": call.name, "arguments": arguments}
        return {"id": call_id, "type": "function", "function": function}


class Replies:
    """Of one request; chat and completions differ in the methods below."""

    prefix = ""
    whole_object = ""
    chunk_object = ""

    def __init__(self, ask: Ask, target: Target, instance_ids: Sequence[str]) -> None:
        self._ask = ask
        self._texts = target.tokenizer
        self._head: dict[str, Any] = {
            "id": f"{self.prefix}-{instance_ids[0]}",
            "object": self.whole_object,
            "created": int(time.time()),
            "model": ask.model,
            "system_fingerprint": f"fp_{target.digest[:12]}",
        }
        self._choices = [
            Choice(index, instance_id, ask, target)
            for index, instance_id in enumerate(instance_ids)
        ]

    def chunks(self, index: int, part: Part) -> Iterator[dict[str, Any]]:
        """What a part adds to a stream."""
        choice = self._choices[index]
        for before in self._before(choice):
            yield self._chunk([before])
        offset = len(choice.text)
        for piece in choice.take(part):
            yield self._chunk([self._piece(choice, piece, offset)])
            offset = len(choice.text)
        if choice.end is not None:
            yield self._chunk([self._last(choice)])

    def usage_chunk(self) -> dict[str, Any]:
        return {**self._chunk([]), "usage": self._usage()}

    def gather(self, index: int, part: Part) -> None:
        for _ in self._choices[index].take(part):
            pass

    def whole(self) -> dict[str, Any]:
        choices = [self._whole(choice) for choice in self._choices]
        return {**self._head, "choices": choices, "usage": self._usage()}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        chunk = {**self._head, "object": self.chunk_object, "choices": choices}
        if self._ask.include_usage:
            chunk["usage"] = None
        return chunk

    def _usage(self) -> dict[str, Any]:
        """Choices of one prompt count it once."""
        used = [choice.end.usage if choice.end else Usage() for choice in self._choices]
        asked = used[:: self._ask.n]
        prompt = sum(one.prompt_tokens for one in asked)
        completion = sum(one.generated_tokens for one in used)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": sum(one.cached_tokens for one in asked)},
        }

    def _before(self, choice: Choice) -> Iterator[dict[str, Any]]:
        raise NotImplementedError

    def _piece(self, choice: Choice, piece: Delta | dict[str, Any], offset: int) -> dict[str, Any]:
        raise NotImplementedError

    def _last(self, choice: Choice) -> dict[str, Any]:
        raise NotImplementedError

    def _whole(self, choice: Choice) -> dict[str, Any]:
        raise NotImplementedError


class ChatReplies(Replies):
    prefix = "chatcmpl"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(self, ask: Ask, target: Target, instance_ids: Sequence[str]) -> None:
        super().__init__(ask, target, instance_ids)
        self._opened: set[int] = set()

    def _before(self, choice: Choice) -> Iterator[dict[str, Any]]:
        if choice.index not in self._opened:
            self._opened.add(choice.index)
            delta = {"role": "assistant", "content": "", "refusal": None}
            yield _delta(choice.index, delta)

    def _piece(self, choice: Choice, piece: Delta | dict[str, Any], offset: int) -> dict[str, Any]:
        if isinstance(piece, Delta):
            made = _delta(choice.index, {"content": piece.text})
            if self._ask.wants_logprobs:
                made["logprobs"] = logprobs.for_chat(choice.drawn_by(piece), self._texts)
            return made
        call = {"index": len(choice.calls) - 1, **piece}
        return _delta(choice.index, {"tool_calls": [call]})

    def _last(self, choice: Choice) -> dict[str, Any]:
        assert choice.end is not None
        return {**_delta(choice.index, {}), "finish_reason": choice.end.finish_reason}

    def _whole(self, choice: Choice) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
        if choice.calls:
            message |= {"content": choice.text or None, "tool_calls": choice.calls}
        wants = self._ask.wants_logprobs
        return {
            "index": choice.index,
            "message": message,
            "logprobs": logprobs.for_chat(choice.drawn, self._texts) if wants else None,
            "finish_reason": choice.end.finish_reason if choice.end else None,
        }


def _delta(index: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}


class CompletionReplies(Replies):
    """Calls have no place in this shape: a program that makes some is read for its text."""

    prefix = "cmpl"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def _before(self, choice: Choice) -> Iterator[dict[str, Any]]:
        return iter(())

    def _piece(self, choice: Choice, piece: Delta | dict[str, Any], offset: int) -> dict[str, Any]:
        if not isinstance(piece, Delta):
            return _text(choice.index, "")
        made = _text(choice.index, piece.text)
        if self._ask.wants_logprobs:
            drawn = choice.drawn_by(piece)
            made["logprobs"] = logprobs.for_completion(drawn, self._texts, offset)
        return made

    def _last(self, choice: Choice) -> dict[str, Any]:
        assert choice.end is not None
        return {**_text(choice.index, ""), "finish_reason": choice.end.finish_reason}

    def _whole(self, choice: Choice) -> dict[str, Any]:
        made = _text(choice.index, choice.text)
        if self._ask.wants_logprobs:
            made["logprobs"] = logprobs.for_completion(choice.drawn, self._texts, 0)
        return {**made, "finish_reason": choice.end.finish_reason if choice.end else None}


def _text(index: int, text: str) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": None}


def replies(ask: Ask, target: Target, instance_ids: Sequence[str]) -> Replies:
    made = ChatReplies if ask.kind == "chat" else CompletionReplies
    return made(ask, target, instance_ids)
