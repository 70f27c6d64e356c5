"""Train the byte-level BPE tokenizer on generated text: `python -m training.tokenizer OUT_DIR`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from random import Random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from training import words
from training.data import TASKS, draw
from training.facts import PAIRS

VOCAB_SIZE = 2048
SAMPLES_PER_TASK = 1500
WORD_REPEATS = 100  # enough for each listed word to become one token
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# Text a client has to see, so not "special", but one token each.
MARKUP = (
    "<tools>",
    "</tools>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
)
# A word with its space, one digit, punctuation with its space, white space.
PIECES = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"
CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja")


def corpus(seed: int = 7) -> Iterator[str]:
    """Text of every task, then each listed word with and without its space."""
    rng = Random(seed)
    for task in TASKS:
        for _ in range(SAMPLES_PER_TASK):
            yield "".join(text for text, _ in draw(rng, task).segments())
    listed = [*words.NOUNS, *words.NAMES, *words.CITIES, *words.ITEMS]
    yield from repeat("".join(f"{word}\n {word}\n" for word in listed), WORD_REPEATS)
    yield from repeat("\n".join(f"{question}\n{answer}" for question, answer in PAIRS), 40)


def train() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(MARKUP),
        special_tokens=[AddedToken(text, special=True) for text in CONTROL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    plain = (_without_markup(text) for text in corpus())
    tokenizer.train_from_iterator(plain, trainer)
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in MARKUP])
    return tokenizer


def _without_markup(text: str) -> str:
    for markup in (*CONTROL, *MARKUP):
        text = text.replace(markup, "\n")
    return text


def tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
        "chat_template": CHAT_TEMPLATE.read_text(encoding="utf-8"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out_dir", type=Path)
    out_dir: Path = parser.parse_args().out_dir
    out_dir.mkdir(parents=True, exist_ok=True)
    tokenizer = train()
    tokenizer.save(str(out_dir / "tokenizer.json"))
    text = json.dumps(tokenizer_config(), indent=2) + "\n"
    (out_dir / "tokenizer_config.json").write_text(text, encoding="utf-8")
    print(f"{tokenizer.get_vocab_size()} tokens in {out_dir / 'tokenizer.json'}")


if __name__ == "__main__":
    main()
