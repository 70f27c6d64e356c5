"""Log probabilities in OpenAI's two shapes; tokens become text through the model's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from pie_daemon.gateway.contract import TokenLogprobs


class TokenTexts(Protocol):
    def token_bytes(self, token: int, /) -> bytes: ...


Drawn = Sequence[tuple[int, TokenLogprobs]]
"""Tokens in order, each with its probabilities."""


def for_chat(drawn: Drawn, texts: TokenTexts) -> dict[str, Any]:
    content = [
        {
            **_entry(token, one.chosen, texts),
            "top_logprobs": [_entry(other, logprob, texts) for other, logprob in one.top],
        }
        for token, one in drawn
    ]
    return {"content": content, "refusal": None}


def for_completion(drawn: Drawn, texts: TokenTexts, offset: int) -> dict[str, Any]:
    """`offset`: characters of the answer before the first of these tokens."""
    tokens = [_text(token, texts) for token, _ in drawn]
    offsets = [offset + sum(map(len, tokens[:index])) for index in range(len(tokens))]
    top = [{_text(other, texts): logprob for other, logprob in one.top} for _, one in drawn]
    return {
        "tokens": tokens,
        "token_logprobs": [one.chosen for _, one in drawn],
        "top_logprobs": top,
        "text_offset": offsets,
    }


def _entry(token: int, logprob: float, texts: TokenTexts) -> dict[str, Any]:
    data = texts.token_bytes(token)
    return {"token": _shown(data), "logprob": logprob, "bytes": list(data)}


def _text(token: int, texts: TokenTexts) -> str:
    return _shown(texts.token_bytes(token))


def _shown(data: bytes) -> str:
    """A token may hold part of a character; `bytes` has it exactly."""
    return data.decode(errors="replace")
