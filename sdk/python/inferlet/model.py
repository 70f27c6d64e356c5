"""The model beside which this program runs: its facts and its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inferlet import _host


@dataclass(frozen=True)
class ModelInfo:
    name: str
    architecture: str
    vocab_size: int
    max_context: int
    """Tokens one context may hold."""
    page_size: int
    """Tokens per page of the KV cache."""
    eos_tokens: tuple[int, ...]


class Model:
    """A model served by this daemon. `Model.open()` is the default one."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self._info: ModelInfo | None = None

    @classmethod
    def open(cls, name: str | None = None) -> Model:
        return cls(_host.call(_host.models.Model.open, name))

    @staticmethod
    def names() -> list[str]:
        """Names of all models that can be opened."""
        return list(_host.models.names())

    @property
    def info(self) -> ModelInfo:
        if self._info is None:
            raw = self.handle.info()
            self._info = ModelInfo(
                name=raw.name,
                architecture=raw.architecture,
                vocab_size=raw.vocab_size,
                max_context=raw.max_context,
                page_size=raw.page_size,
                eos_tokens=tuple(raw.eos_tokens),
            )
        return self._info

    def encode(self, text: str, *, add_special: bool = False) -> list[int]:
        """Token ids of `text`; `add_special` adds the tokenizer's own marks, such as BOS."""
        return list(_host.call(self.handle.encode, text, add_special))

    def decode(self, tokens: Sequence[int], *, skip_special: bool = True) -> str:
        text: str = _host.call(self.handle.decode, list(tokens), skip_special)
        return text

    def token_bytes(self, token: int) -> bytes:
        """The bytes one token stands for; a token may hold part of a character."""
        return bytes(_host.call(self.handle.token_bytes, token))

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
    ) -> list[int]:
        """Token ids of a conversation in the OpenAI shape, through the model's own template."""
        tools_json = None if tools is None else json.dumps(list(tools))
        return list(
            _host.call(
                self.handle.apply_chat_template,
                json.dumps(list(messages)),
                tools_json,
                add_generation_prompt,
            )
        )
