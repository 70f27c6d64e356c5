"""A decode loop that the engine runs by itself; the program only takes what is ready."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from inferlet import _host
from inferlet._handle import Handle
from inferlet.events import Waitable

FinishReason = Literal["stop", "length", "budget", "cancelled"]
"""`stop`: an end token, stop token or stop string came; `Generation.stopped_by` says which. Or the
text is all that its constraint allows; then it is None."""

_FINISH_REASONS: dict[str, FinishReason] = {
    "FinishReason_StopToken": "stop",
    "FinishReason_StopString": "stop",
    "FinishReason_ConstraintComplete": "stop",
    "FinishReason_Length": "length",
    "FinishReason_Budget": "budget",
    "FinishReason_Cancelled": "cancelled",
}


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Of one token, in the model's own distribution: before temperature, penalties and biases."""

    chosen: float
    """Natural logarithm of the drawn token's probability."""
    top: list[tuple[int, float]]
    """The likeliest tokens and theirs, in descending order."""


@dataclass(frozen=True, slots=True)
class Chunk:
    tokens: list[int]
    text: str
    """May lag behind `tokens`: half a character, or the beginning of a stop string, waits."""
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    """One per token; empty unless the option `logprobs` was given."""


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt, how many were found in the KV cache."""
    generated_tokens: int = 0
    drafted_tokens: int = 0
    """Guessed by `ngram_speculation` and verified."""
    accepted_tokens: int = 0
    """Of those, how many became generated tokens."""
    queued_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class Generation(Handle):
    """Iterate over it for chunks as they come, `collect()` it whole, or `relay()` it to the client.

    `text`, `tokens` and `logprobs` grow with every chunk taken. Leaving a `with` block, or
    `cancel()`, stops the engine; the context then ends with what was taken.
    """

    def __init__(self, handle: Any) -> None:
        super().__init__(handle)
        self.tokens: list[int] = []
        self.logprobs: list[TokenLogprobs] = []
        self._texts: list[str] = []

    def __iter__(self) -> Iterator[Chunk]:
        while (chunk := self.next()) is not None:
            yield chunk

    def next(self) -> Chunk | None:
        """Blocks for the next chunk; None when the generation has finished."""
        raw = _host.call(self.handle.next)
        return None if raw is None else self._took(raw)

    def relay(self) -> Generation:
        """Waits for the end, while Pie itself sends the text of each chunk to the client as it
        comes: what `session.send_event("delta", text=chunk.text)` for every chunk that has text
        would send, at a fraction of the cost. `chunk_tokens` says how large chunks are."""
        self._took(_host.call(self.handle.relay))
        return self

    def _took(self, raw: Any) -> Chunk:
        logprobs = [TokenLogprobs(one.chosen, one.top) for one in raw.logprobs]
        self._texts.append(raw.text)
        self.tokens += raw.tokens
        self.logprobs += logprobs
        return Chunk(raw.tokens, raw.text, logprobs)

    def collect(self) -> Generation:
        """Waits for the end, so that `text`, `tokens` and `finish_reason` are whole."""
        while self.next() is not None:
            pass
        return self

    @property
    def text(self) -> str:
        """Everything taken so far."""
        self._texts = ["".join(self._texts)]
        return self._texts[0]

    @property
    def finish_reason(self) -> FinishReason | None:
        """None while it runs."""
        reason = self.handle.finish()
        return None if reason is None else _FINISH_REASONS[type(reason).__name__]

    @property
    def stopped_by(self) -> int | str | None:
        """The stop token or stop string that ended it."""
        return getattr(self.handle.finish(), "value", None)

    @property
    def usage(self) -> Usage:
        raw = json.loads(self.handle.usage())
        return Usage(**{name: raw[name] for name in Usage.__slots__ if name in raw})

    def cancel(self) -> None:
        self.handle.cancel()

    def waitable(self) -> Waitable:
        return Waitable(self.handle.subscribe())
