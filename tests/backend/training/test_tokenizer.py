"""crumb's tokenizer and chat template, as they are packaged."""

from __future__ import annotations

import json
from functools import cache
from itertools import islice
from pathlib import Path

import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer as Encoder
from training import data, words
from training.batches import Encoder as SampleEncoder
from training.sample import Sample
from training.tokenizer import CHAT_TEMPLATE, tokenizer_config
from training.tools import openai_tools

from pie_backend.tokenizer import Tokenizer

CRUMB = Path(__file__).parents[3] / "backend/pie_backend/crumb"


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.from_file(str(CRUMB / "tokenizer.json"))


@cache
def template() -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment()
    return environment.from_string(CHAT_TEMPLATE.read_text(encoding="utf-8"))


def rendered(sample: Sample, *, prompt: bool) -> str:
    messages = sample.messages()[: -1 if prompt else None]
    return template().render(
        messages=messages, tools=openai_tools(sample), add_generation_prompt=prompt
    )


def test_text_survives_encoding(encoder: Encoder) -> None:
    """Decoding gives back any text, known or not."""
    texts = ["12 + 30 =", "Übergrößen 東京 \U0001f955\n\n\tx", "a  b   c\r\n", '{"a": [1, 2]}', ""]
    texts += [sample.turns[0].text for sample in islice(data.training_samples(1), 200)]
    for text in texts:
        tokens = encoder.encode(text, add_special_tokens=False).ids
        assert encoder.decode(tokens, skip_special_tokens=False) == text


def test_every_digit_is_one_token(encoder: Encoder) -> None:
    """Numbers are split into their digits, wherever they stand."""
    for text in ("123+456=", "What is 123 + 456?", '{"age": 42}'):
        pieces = encoder.encode(text, add_special_tokens=False).tokens
        assert [p for p in pieces if p.isdigit()] == [c for c in text if c.isdigit()]


def test_listed_words_are_short(encoder: Encoder) -> None:
    """Nearly all words of the word tasks are single tokens where most of them stand."""
    lengths = [len(encoder.encode(f" {word}").ids) for word in words.NOUNS]
    assert lengths.count(1) / len(lengths) > 0.85
    assert max(lengths) <= 3


def test_markup_is_one_token_and_visible(encoder: Encoder) -> None:
    """Tool tags are single tokens, yet stay in decoded text; control tokens do not."""
    tokens = encoder.encode("<tool_call>x</tool_call><|im_end|>", add_special_tokens=False).ids
    assert len(tokens) == 4
    assert encoder.decode(tokens) == "<tool_call>x</tool_call>"


@pytest.mark.parametrize("task", ["addition", "tool_call", "react", "no_tool", "chat", "extract"])
def test_the_template_writes_what_training_read(task: str) -> None:
    """Jinja and the generator give the same text, for prompts and for whole conversations."""
    chats = [s for s in data.held_out_samples(task, 24) if not s.raw]
    assert chats
    for sample in chats:
        whole = "".join(text for text, _ in sample.segments())
        assert rendered(sample, prompt=False) == whole
        assert rendered(sample, prompt=True) == sample.prompt()


def test_a_call_may_come_as_openai_gives_it() -> None:
    """An assistant's `tool_calls` are written as the model writes its calls."""
    call = {"function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    messages = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    body = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    expected = f"<|im_start|>assistant\n{body}<|im_end|>\n"
    assert template().render(messages=messages) == expected


def test_pieces_of_a_sample_are_the_tokens_of_its_whole_text(encoder: Encoder) -> None:
    """Training on pieces meets the tokens that inference makes of the whole prompt."""
    pieces = SampleEncoder(encoder)
    for sample in islice(data.training_samples(2), 300):
        whole = "".join(text for text, _ in sample.segments())
        expected = encoder.encode(whole, add_special_tokens=False).ids
        assert pieces.encode(sample).tokens == expected


def test_the_packaged_configuration_is_the_scripts() -> None:
    """tokenizer_config.json is what training writes."""
    packaged = json.loads((CRUMB / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert packaged == tokenizer_config()


def test_the_backend_encodes_chats_as_training_did(encoder: Encoder) -> None:
    """The backend's tokenizer gives the token ids of the generator's prompt."""
    ours = Tokenizer("crumb")
    for sample in (*data.held_out_samples("tool_call", 20), *data.held_out_samples("chat", 20)):
        if sample.raw:
            continue
        expected = encoder.encode(sample.prompt(), add_special_tokens=False).ids
        tools = openai_tools(sample) or None
        assert ours.apply_chat_template(sample.messages()[:-1], tools, True) == expected
