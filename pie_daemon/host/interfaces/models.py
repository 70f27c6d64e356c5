"""WIT interface `models`: tokenizers and facts of the loaded models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from pie_backend.chat_template import ChatTemplateError
from pie_daemon.errors import PieError
from pie_daemon.host.context import HostContext, Model


def names(host: HostContext) -> list[str]:
    return sorted(host.models.by_name)


def open_model(host: HostContext, name: str | None) -> Model:
    return host.models.get(name)


def info(host: HostContext, model: Model) -> dict[str, Any]:
    facts = model.info
    return {
        "name": model.name,
        "architecture": facts.architecture,
        "vocab_size": facts.vocab_size,
        "max_context": facts.max_context,
        "page_size": facts.page_size,
        "eos_tokens": facts.eos_tokens,
    }


def encode(host: HostContext, model: Model, text: str, add_special: bool) -> list[int]:
    return model.tokenizer.encode(text, add_special)


def decode(host: HostContext, model: Model, tokens: list[int], skip_special: bool) -> str:
    check_tokens(model, tokens)
    return model.tokenizer.decode(tokens, skip_special)


def token_bytes(host: HostContext, model: Model, token: int) -> bytes:
    check_tokens(model, [token])
    return model.tokenizer.token_bytes(token)


def apply_chat_template(
    host: HostContext,
    model: Model,
    messages: str,
    tools: str | None,
    add_generation_prompt: bool,
) -> list[int]:
    parsed_messages = _objects("messages", messages)
    parsed_tools = None if tools is None else _objects("tools", tools)
    try:
        return model.tokenizer.apply_chat_template(
            parsed_messages, parsed_tools, add_generation_prompt
        )
    except ChatTemplateError as error:
        raise PieError("invalid-argument", str(error)) from None


def _objects(what: str, text: str) -> list[dict[str, Any]]:
    try:
        return msgspec.json.decode(text.encode(), type=list[dict[str, Any]])
    except msgspec.MsgspecError as error:
        raise PieError(
            "invalid-argument", f"{what} must be a JSON list of objects: {error}"
        ) from None


def check_tokens(model: Model, tokens: list[int]) -> None:
    """Every id has to be in the vocabulary; the host never hands the backend anything else."""
    if tokens and max(tokens) >= model.info.vocab_size:
        bad = max(tokens)
        raise PieError(
            "invalid-argument",
            f"token {bad} is outside the vocabulary of {model.name}: [0, {model.info.vocab_size})",
        )


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "names": names,
    "[static]model.open": open_model,
    "[method]model.info": info,
    "[method]model.encode": encode,
    "[method]model.decode": decode,
    "[method]model.token-bytes": token_bytes,
    "[method]model.apply-chat-template": apply_chat_template,
}
