"""Random models that read and write text, or that say what they have been told."""

from __future__ import annotations

import json
import random
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.model import CHECKPOINTS, SMALL, checkpoint

if TYPE_CHECKING:
    from torch import Tensor

TEXT = CHECKPOINTS.absolute() / "qwen3-88m-text"
COPYING = CHECKPOINTS.absolute() / "qwen3-88m-copying"
END = "<|end|>"
_FOLLOWING = COPYING / "following.json"


def text_checkpoint() -> Path:
    """The weights of `SMALL` with a byte-level tokenizer of as many tokens, made of syllables and
    of some JSON, so that grammars have tokens to choose from."""
    weights = checkpoint(SMALL)
    if not (TEXT / "tokenizer.json").is_file():
        TEXT.mkdir(parents=True, exist_ok=True)
        if not (TEXT / "model.safetensors").exists():
            # Relative, so that it holds wherever the folder is moved.
            name = "model.safetensors"
            (TEXT / name).symlink_to(Path("..") / weights.name / name)
        config = SMALL.config | {"eos_token_id": 0}
        (TEXT / "config.json").write_text(json.dumps(config, indent=2))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END}
        (TEXT / "tokenizer_config.json").write_text(json.dumps(settings))
        _write_tokenizer(TEXT / "tokenizer.json")
    return TEXT


def copying_checkpoint() -> Path:
    """`SMALL` with an attention that is computed and then multiplied by 0: which token follows
    depends on the last one alone, so that a prompt can say what the answer will be."""
    if not _FOLLOWING.is_file():
        from safetensors.torch import load_file, save_file

        text = text_checkpoint()
        COPYING.mkdir(parents=True, exist_ok=True)
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            (COPYING / name).write_bytes((text / name).read_bytes())
        weights = load_file(text / "model.safetensors")
        for layer in range(SMALL.layers):
            weights[f"model.layers.{layer}.self_attn.o_proj.weight"].zero_()
        save_file(weights, COPYING / "model.safetensors", metadata={"format": "pt"})
        _FOLLOWING.write_text(json.dumps(_following(weights)))
    return COPYING


@cache
def following() -> list[int]:
    """By token, the one that `copying_checkpoint` draws after it."""
    found: list[int] = json.loads((copying_checkpoint() / _FOLLOWING.name).read_text())
    return found


def _following(weights: dict[str, Tensor]) -> list[int]:
    import torch

    embedding = weights["model.embed_tokens.weight"]
    with torch.inference_mode():
        last = [_through(rows, weights) @ embedding.T for rows in torch.split(embedding, 1024)]
        tokens: list[int] = torch.cat([logits.argmax(-1) for logits in last]).tolist()
    return tokens


def _through(rows: Tensor, weights: dict[str, Tensor]) -> Tensor:
    from torch.nn.functional import rms_norm, silu

    def normed(x: Tensor, name: str) -> Tensor:
        return rms_norm(x, x.shape[-1:], weights[name], 1e-6)

    for layer in range(SMALL.layers):
        name = f"model.layers.{layer}"
        inner = normed(rows, f"{name}.post_attention_layernorm.weight")
        gate = silu(inner @ weights[f"{name}.mlp.gate_proj.weight"].T)
        up = inner @ weights[f"{name}.mlp.up_proj.weight"].T
        rows = rows + (gate * up) @ weights[f"{name}.mlp.down_proj.weight"].T
    return normed(rows, "model.norm.weight")


def _write_tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SMALL.vocab,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    assert tokenizer.get_vocab_size() == SMALL.vocab
    tokenizer.save(str(path))


def _texts() -> list[str]:
    source = random.Random(0)
    syllables = ["".join(pair) for pair in product("bcdfghjklmnpqrstvwxyz", "aeiou")]
    words = ["".join(source.choices(syllables, k=source.randint(2, 4))) for _ in range(30000)]
    objects = [json.dumps(dict(zip(words[:4], words[4:8], strict=True)), separators=(",", ":"))]
    return [*(f" {word}" for word in words), *words[:1000], *(objects * 100)]
