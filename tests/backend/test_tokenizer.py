"""The tokenizer gives what transformers' AutoTokenizer gives, without transformers or torch."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pie_backend.base import BackendError
from pie_backend.model_dir import resolve
from pie_backend.tokenizer import ChatTemplateError, Tokenizer
from support.chat_model import PLAIN_ADDED_TOKEN, SPECIAL_TOKENS, TEXTS, write_chat_model

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "wetter",
            "description": 'Sagt das <Wetter> für "morgen" & später',
            "parameters": {"type": "object", "properties": {"stadt": {"type": "string"}}},
        },
    }
]
CONVERSATIONS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Hello there"}],
    [
        {"role": "system", "content": "  You are terse. "},
        {"role": "user", "content": "你好 👋"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "Go on"},
    ],
    [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"type": "function", "function": {"name": "wetter", "arguments": {"stadt": "Köln"}}}
            ],
        },
        {"role": "tool", "content": '{"grad": 21}'},
    ],
]


@pytest.fixture(scope="session")
def tokenizer(chat_model: Path) -> Tokenizer:
    return Tokenizer(chat_model)


@pytest.fixture(scope="session")
def reference(chat_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(chat_model)


@pytest.mark.parametrize("text", TEXTS)
def test_encodes_and_decodes_like_transformers(
    tokenizer: Tokenizer, reference: Any, text: str
) -> None:
    """Ids are equal with and without special tokens, and so is the text made of them."""
    for add_special in (True, False):
        ids = tokenizer.encode(text, add_special)
        assert ids == reference.encode(text, add_special_tokens=add_special)
        for skip_special in (True, False):
            expected = reference.decode(ids, skip_special_tokens=skip_special)
            assert tokenizer.decode(ids, skip_special) == expected
    assert tokenizer.vocab_size == len(reference)


@pytest.mark.parametrize("messages", CONVERSATIONS)
@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_chat_like_transformers(
    tokenizer: Tokenizer,
    reference: Any,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None,
    add_generation_prompt: bool,
) -> None:
    """The rendered chat and its ids are equal, with tools, tool calls and HTML in them."""
    keywords: dict[str, Any] = {"tools": tools, "add_generation_prompt": add_generation_prompt}
    expected = reference.apply_chat_template(messages, tokenize=False, **keywords)
    assert tokenizer.render_chat(messages, tools, add_generation_prompt) == expected
    ids = reference.apply_chat_template(messages, return_dict=False, **keywords)
    assert tokenizer.apply_chat_template(messages, tools, add_generation_prompt) == ids


@pytest.mark.parametrize("sentencepiece", [False, True])
@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=40))
def test_bytes_of_tokens_make_the_text(
    both: dict[bool, Tokenizer], sentencepiece: bool, text: str
) -> None:
    """The bytes of a text's tokens, joined, are the text, whatever characters it holds."""
    tokenizer = both[sentencepiece]
    ids = tokenizer.encode(text, add_special=False)
    joined = b"".join(map(tokenizer.token_bytes, ids)).decode()
    # U+2581 stands for a space in a vocabulary like this, and cannot be told apart.
    assert joined == (text.replace("\u2581", " ") if sentencepiece else text)


@pytest.fixture(scope="session")
def both(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Tokenizer]:
    path = write_chat_model(tmp_path_factory.mktemp("sentencepiece"), sentencepiece=True)
    return {False: tokenizer, True: Tokenizer(path)}


def test_special_tokens_have_no_bytes(tokenizer: Tokenizer) -> None:
    """Control tokens add nothing to the text; added words that are not special do."""
    for name in SPECIAL_TOKENS:
        [token] = tokenizer.encode(name, add_special=False)
        assert tokenizer.is_special(token)
        assert tokenizer.token_bytes(token) == b""
    [token] = tokenizer.encode(PLAIN_ADDED_TOKEN, add_special=False)
    assert not tokenizer.is_special(token)
    assert tokenizer.token_bytes(token) == PLAIN_ADDED_TOKEN.encode()
    assert tokenizer.token_bytes(tokenizer.vocab_size + 5) == b""


def test_many_threads(tokenizer: Tokenizer) -> None:
    """Threads that share a tokenizer get what one thread gets."""
    expected = [tokenizer.apply_chat_template(messages, TOOLS) for messages in CONVERSATIONS]
    wrong: list[object] = []

    def work() -> None:
        for _ in range(20):
            found = [tokenizer.apply_chat_template(messages, TOOLS) for messages in CONVERSATIONS]
            if found != expected:
                wrong.append(found)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([{"role": "wizard", "content": "x"}], "unknown role wizard"),
        ([{"content": "x"}], "chat template failed"),
        (["text"], "chat template failed"),
    ],
)
def test_refused_messages(tokenizer: Tokenizer, messages: Any, complaint: str) -> None:
    """What the template cannot render is a ChatTemplateError with its own words."""
    with pytest.raises(ChatTemplateError, match=complaint):
        tokenizer.render_chat(messages)


def write(path: Path, template: str | None, **config: Any) -> Tokenizer:
    write_chat_model(path)
    (path / "chat_template.jinja").unlink()
    settings = json.loads((path / "tokenizer_config.json").read_text())
    settings |= config if template is None else {"chat_template": template, **config}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return Tokenizer(resolve(path))


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ (1).__class__.__base__ }}",
        "{{ 1 // 0 }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_template_is_sandboxed(tmp_path: Path, template: str) -> None:
    """A template cannot reach Python's internals, change its input, or read files."""
    tokenizer = write(tmp_path, template)
    with pytest.raises(ChatTemplateError):
        tokenizer.render_chat([{"role": "user", "content": "x"}])


def test_template_by_name(tmp_path: Path) -> None:
    """Of several templates, `tool_use` is taken when there are tools, else `default`."""
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    tokenizer = write(tmp_path, None, chat_template=named)
    assert tokenizer.render_chat([]) == "plain"
    assert tokenizer.render_chat([], TOOLS) == "tools"


def test_template_knows_the_date(tmp_path: Path) -> None:
    """`strftime_now` works as templates of Llama 3 expect."""
    assert write(tmp_path, "{{ strftime_now('%Y') }}").render_chat([]).startswith("20")


def test_no_template(tmp_path: Path) -> None:
    """A model without a chat template says so."""
    tokenizer = write(tmp_path, None)
    assert not tokenizer.has_chat_template
    with pytest.raises(ChatTemplateError, match="no chat template"):
        tokenizer.apply_chat_template([{"role": "user", "content": "x"}])


def test_unusable_files(tmp_path: Path) -> None:
    """A missing or damaged tokenizer, or a template with a syntax error, is a BackendError."""
    with pytest.raises(BackendError, match="does not compile"):
        write(tmp_path, "{% if %}")
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(BackendError, match="cannot be read"):
        Tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(BackendError, match="is missing"):
        Tokenizer(tmp_path)
