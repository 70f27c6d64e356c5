"""The random model that throughput is measured on: 88M parameters in the shape of Qwen3."""

from __future__ import annotations

import json
import random
from pathlib import Path

VOCAB_SIZE = 16384
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "attention_bias": False,
    "dtype": "bfloat16",
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 768,
    "intermediate_size": 2048,
    "max_position_embeddings": 2048,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "tie_word_embeddings": True,
    "vocab_size": VOCAB_SIZE,
}


def ensure_model(directory: Path) -> Path:
    """Writes the model, with a tokenizer of 16384 words `w0`, `w1`, ..., unless it is there."""
    if not (directory / "tokenizer.json").is_file():
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps(CONFIG, indent=2))
        _write_weights(directory / "model.safetensors")
        _write_tokenizer(directory / "tokenizer.json")
    return directory


def prompts(num_prompts: int, num_tokens: int, seed: int = 0) -> list[list[int]]:
    """Token ids; the text of one is its words `w<id>` with spaces between (see `as_text`)."""
    source = random.Random(seed)
    return [[source.randrange(VOCAB_SIZE) for _ in range(num_tokens)] for _ in range(num_prompts)]


def as_text(prompt: list[int]) -> str:
    return " ".join(f"w{token}" for token in prompt)


def _write_weights(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)

    def normal(std: float, *shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * std).to(torch.bfloat16)

    hidden, inner, head_dim = 768, 2048, 64
    tensors = {"model.embed_tokens.weight": normal(0.08, VOCAB_SIZE, hidden)}
    tensors["model.norm.weight"] = normal(0.3, hidden)
    shapes = {
        "self_attn.q_proj": (12 * head_dim, hidden),
        "self_attn.k_proj": (4 * head_dim, hidden),
        "self_attn.v_proj": (4 * head_dim, hidden),
        "self_attn.o_proj": (hidden, 12 * head_dim),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
        "self_attn.q_norm": (head_dim,),
        "self_attn.k_norm": (head_dim,),
    }
    for layer in range(12):
        for name, shape in shapes.items():
            std = 0.3 if "norm" in name else 0.08
            tensors[f"model.layers.{layer}.{name}.weight"] = normal(std, *shape)
    save_file(tensors, path, metadata={"format": "pt"})


def _write_tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"w{i}": i for i in range(VOCAB_SIZE)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(path))
