"""The host side of `models`: what a program may hand in, and what it gets for nonsense."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pie_backend.batch import BackendInfo
from pie_backend.chat_template import ChatTemplateError
from pie_daemon.errors import PieError
from pie_daemon.host.context import Model, Models
from pie_daemon.host.interfaces import models

INFO = BackendInfo(
    name="m",
    architecture="dummy",
    vocab_size=10,
    max_context=64,
    page_size=4,
    num_pages=8,
    page_bytes=0,
    eos_tokens=[0],
    device="cpu",
    dtype="float32",
)
HOST: Any = None


class Refusing:
    def apply_chat_template(self, *arguments: object) -> list[int]:
        raise ChatTemplateError("the first message must be of the user")


def model(tokenizer: Any = None) -> Model:
    serving: Any = SimpleNamespace(info=INFO)
    return Model("m", tokenizer, serving, serving)


@pytest.mark.parametrize("tokens", [[10], [0, 4_000_000_000]])
def test_tokens_outside_the_vocabulary_are_refused(tokens: list[int]) -> None:
    """Before they reach a tokenizer or a backend; the range is named."""
    with pytest.raises(PieError, match=r"\[0, 10\)") as refused:
        models.decode(HOST, model(), tokens, True)
    assert "invalid-argument" == refused.value.code


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"role": '])
def test_messages_have_to_be_a_list_of_objects(text: str) -> None:
    """Anything else is the program's mistake, not a trap."""
    with pytest.raises(PieError, match="messages must be") as refused:
        models.apply_chat_template(HOST, model(), text, None, True)
    assert "invalid-argument" == refused.value.code


def test_what_the_template_refuses_is_the_programs_mistake() -> None:
    """In the template's own words."""
    with pytest.raises(PieError, match="must be of the user") as refused:
        models.apply_chat_template(HOST, model(Refusing()), "[]", None, True)
    assert "invalid-argument" == refused.value.code


def test_an_unknown_model_is_answered_with_the_known_ones() -> None:
    """None opens the default one."""
    known = Models({"m": model()}, "m")
    assert known.get("m") is known.get(None)
    with pytest.raises(PieError, match="there are: m"):
        known.get("n")
