"""The random models that everything is measured on, in the shape of Qwen3."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKPOINTS = Path(".cache/bench")


@dataclass(frozen=True, slots=True)
class Shape:
    """Weights are N(0, 0.08), norms N(0, 0.3): by other defaults a model repeats one token."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocab: int
    max_context: int = 2304

    @property
    def directory(self) -> Path:
        return CHECKPOINTS.absolute() / self.name

    @property
    def read_bytes(self) -> int:
        """Of bfloat16 weights that one decode step reads: all of them, the tied head once."""
        attention = (2 * self.heads + 2 * self.kv_heads) * self.head_dim * self.hidden
        layer = attention + 3 * self.hidden * self.mlp
        return 2 * (self.layers * layer + self.vocab * self.hidden)

    @property
    def config(self) -> dict[str, Any]:
        return {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "attention_bias": False,
            "dtype": "bfloat16",
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "intermediate_size": self.mlp,
            "max_position_embeddings": self.max_context,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "tie_word_embeddings": True,
            "vocab_size": self.vocab,
        }


SMALL = Shape("qwen3-88m", 768, 12, 12, 4, 64, 2048, 16384)
LARGE = Shape("qwen3-06b", 1024, 28, 16, 8, 128, 3072, 151936)
LONG = Shape("qwen3-88m-16k", 768, 12, 12, 4, 64, 2048, 16384, max_context=16384)
"""`SMALL` with room for long contexts: the same weights."""


def checkpoint(shape: Shape = SMALL) -> Path:
    """Its directory, written on the first call, with a tokenizer of words `w0`, `w1`, ..."""
    directory = shape.directory
    if not (directory / "tokenizer.json").is_file():
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps(shape.config, indent=2))
        _write_weights(shape, directory / "model.safetensors")
        _write_tokenizer(shape, directory / "tokenizer.json")
    return directory


def prompts(
    num_prompts: int, num_tokens: int, seed: int = 0, shape: Shape = SMALL
) -> list[list[int]]:
    """Token ids; the text of one is its words `w<id>` with spaces between (see `as_text`)."""
    source = random.Random(seed)
    return [[source.randrange(shape.vocab) for _ in range(num_tokens)] for _ in range(num_prompts)]


def as_text(prompt: list[int]) -> str:
    return " ".join(f"w{token}" for token in prompt)


def _write_weights(shape: Shape, path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)

    def normal(std: float, *size: int) -> torch.Tensor:
        return (torch.randn(*size, generator=generator) * std).to(torch.bfloat16)

    tensors = {"model.embed_tokens.weight": normal(0.08, shape.vocab, shape.hidden)}
    tensors["model.norm.weight"] = normal(0.3, shape.hidden)
    for layer in range(shape.layers):
        for name, size in _layer(shape).items():
            std = 0.3 if "norm" in name else 0.08
            tensors[f"model.layers.{layer}.{name}.weight"] = normal(std, *size)
    save_file(tensors, path, metadata={"format": "pt"})


def _layer(shape: Shape) -> dict[str, tuple[int, ...]]:
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return {
        "self_attn.q_proj": (queries, shape.hidden),
        "self_attn.k_proj": (keys, shape.hidden),
        "self_attn.v_proj": (keys, shape.hidden),
        "self_attn.o_proj": (shape.hidden, queries),
        "mlp.gate_proj": (shape.mlp, shape.hidden),
        "mlp.up_proj": (shape.mlp, shape.hidden),
        "mlp.down_proj": (shape.hidden, shape.mlp),
        "input_layernorm": (shape.hidden,),
        "post_attention_layernorm": (shape.hidden,),
        "self_attn.q_norm": (shape.head_dim,),
        "self_attn.k_norm": (shape.head_dim,),
    }


def _write_tokenizer(shape: Shape, path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"w{i}": i for i in range(shape.vocab)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(path))
