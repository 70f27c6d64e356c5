"""Text to token ids and back, from a Hugging Face tokenizer.json. Never imports torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from pie_backend.base import BackendError
from pie_backend.chat_template import ChatTemplate, ChatTemplateError, Message
from pie_backend.model_dir import ModelDir, read_json, resolve

__all__ = ["ChatTemplateError", "Message", "Tokenizer"]

_SPECIAL_NAMES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Tokenizer:
    """May be used from any number of threads at once."""

    def __init__(self, source: ModelDir | Path | str) -> None:
        """Takes what `resolve` takes, or its result.

        Raises:
            BackendError: the directory holds no usable tokenizer.
        """
        model = source if isinstance(source, ModelDir) else resolve(source)
        self._tokenizer = _load(model)
        self._config = read_json(model.path / "tokenizer_config.json", default={})
        self._special_ids = self._find_special_ids()
        self._byte_level = '"ByteLevel"' in _decoder_json(self._tokenizer)
        self._added = {
            i: token.content for i, token in self._tokenizer.get_added_tokens_decoder().items()
        }
        special_tokens = self._special_tokens(model)
        sources = _template_sources(model, self._config)
        self._templates = {k: ChatTemplate(v, special_tokens) for k, v in sources.items()}

    @property
    def vocab_size(self) -> int:
        """Added tokens included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    @property
    def has_chat_template(self) -> bool:
        return bool(self._templates)

    def encode(self, text: str, add_special: bool = True) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=add_special).ids

    def decode(self, tokens: Sequence[int], skip_special: bool = True) -> str:
        """Ids outside the vocabulary are skipped."""
        return self._tokenizer.decode(list(tokens), skip_special_tokens=skip_special)

    def is_special(self, token: int) -> bool:
        return token in self._special_ids

    def token_bytes(self, token: int) -> bytes:
        """What a token adds to the output; empty for special tokens and ids outside the vocabulary.

        A prefix space that the decoder strips from the start of a text is kept.
        """
        if token in self._special_ids:
            return b""
        if token in self._added:
            return self._added[token].encode()
        text = self._tokenizer.id_to_token(token)
        if text is None:
            return b""
        if self._byte_level:
            return bytes(_BYTE_OF[c] for c in text if c in _BYTE_OF)
        if match := _BYTE_TOKEN.fullmatch(text):
            return bytes([int(match[1], 16)])
        return text.replace("\u2581", " ").encode()

    def render_chat(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
    ) -> str:
        """Raises ChatTemplateError when there is no template or it refuses the messages."""
        name = "tool_use" if tools and "tool_use" in self._templates else "default"
        template = self._templates.get(name)
        if template is None:
            raise ChatTemplateError("this model has no chat template; use a plain prompt instead")
        return template.render(messages, tools, add_generation_prompt)

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
    ) -> list[int]:
        """Raises ChatTemplateError when there is no template or it refuses the messages."""
        # The template writes the special tokens itself.
        text = self.render_chat(messages, tools, add_generation_prompt)
        return self.encode(text, add_special=False)

    def _find_special_ids(self) -> frozenset[int]:
        added = self._tokenizer.get_added_tokens_decoder()
        return frozenset(i for i, token in added.items() if token.special)

    def _special_tokens(self, model: ModelDir) -> dict[str, str]:
        merged = {**read_json(model.path / "special_tokens_map.json", default={}), **self._config}
        named = {name: _content(merged.get(name)) for name in _SPECIAL_NAMES}
        return {name: content for name, content in named.items() if content is not None}


def _load(model: ModelDir) -> tokenizers.Tokenizer:
    path = model.path / "tokenizer.json"
    if not path.is_file():
        raise BackendError(f"{path} is missing; save the model with a fast tokenizer first")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:
        # The library raises bare Exception for anything it cannot read.
        raise BackendError(f"{path} cannot be read: {error}") from error
    # These cut or pad what an encoder trains on; a prompt is taken whole.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _decoder_json(tokenizer: tokenizers.Tokenizer) -> str:
    return json.dumps(json.loads(tokenizer.to_str()).get("decoder"))


def _content(token: object) -> str | None:
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _template_sources(model: ModelDir, config: dict[str, Any]) -> dict[str, str]:
    """By name; a file wins over tokenizer_config.json."""
    path = model.path / "chat_template.jinja"
    if path.is_file():
        try:
            return {"default": path.read_text(encoding="utf-8")}
        except (OSError, ValueError) as error:
            raise BackendError(f"{path} cannot be read: {error}") from error
    found = config.get("chat_template")
    if isinstance(found, str):
        return {"default": found}
    entries = found if isinstance(found, list) else []
    return {e["name"]: e["template"] for e in entries if isinstance(e, dict) and "template" in e}


def _bytes_of_characters() -> dict[str, int]:
    """GPT-2's printable alphabet: bytes that print stand for themselves, others are moved up."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(moved)}


_BYTE_OF = _bytes_of_characters()
