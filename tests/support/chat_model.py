"""A model directory with everything but weights: config, trained tokenizer, chat template."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "  leading spaces, trailing spaces   \n\nand\ttabs",
    "naïve café — 你好 世界 👩‍👩‍👧‍👦 Ünïcödé",
    'def f(x):\n    return {"a": [1, 2.5, None], "b": x**2}\n',
    "<|start|>user\nspecial tokens inside text<|end|> and <tool>after",
    "",
    " ",
    "1234567890 + 9 = ?",
]

TEMPLATE = """{{- bos_token }}
{%- if tools %}
<|start|>system
Tools:
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}<|end|>
{%- endif %}
{%- for message in messages %}
    {%- if message.role not in ['system', 'user', 'assistant', 'tool'] %}
        {{- raise_exception('unknown role ' + message.role) }}
    {%- endif %}
    {%- if message.role == 'assistant' %}
{% generation %}<|start|>assistant
{{ message.content or '' }}
        {%- for call in message.tool_calls or [] %}
<tool>{{ call.function | tojson(indent=2) }}
        {%- endfor %}{% endgeneration %}<|end|>
        {%- continue %}
    {%- endif %}
<|start|>{{ message.role }}
{{ message.content | trim }}<|end|>
{%- endfor %}
{%- if add_generation_prompt %}
<|start|>assistant
{% endif %}"""

SPECIAL_TOKENS = ["<|bos|>", "<|start|>", "<|end|>"]
PLAIN_ADDED_TOKEN = "<tool>"
_BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]


def write_chat_model(path: Path, *, sentencepiece: bool = False) -> Path:
    tokenizer = _sentencepiece_like() if sentencepiece else _byte_level()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", tokenizer.token_to_id("<|bos|>"))]
    )
    tokenizer.add_tokens([PLAIN_ADDED_TOKEN])
    tokenizer.save(str(path / "tokenizer.json"))
    names = {"bos_token": "<|bos|>", "eos_token": "<|end|>", "pad_token": "<|end|>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    (path / "chat_template.jinja").write_text(TEMPLATE)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "eos_token_id": 2}
    (path / "config.json").write_text(json.dumps(config))
    return path


def _byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    return tokenizer


def _sentencepiece_like() -> Tokenizer:
    """Spaces as U+2581 and unknown characters as bytes, the way Llama 2 has it."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<unk>", *SPECIAL_TOKENS, *_BYTE_TOKENS],
        limit_alphabet=60,
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    saved = json.loads(tokenizer.to_str())
    # Bytes are ordinary entries of the vocabulary; the trainer only adds them as special ones.
    saved["added_tokens"] = [t for t in saved["added_tokens"] if t["content"] not in _BYTE_TOKENS]
    return Tokenizer.from_str(json.dumps(saved))
