"""Small random checkpoints written by transformers, and what transformers generates from them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers

# Shapes are tiny, so weights are wider than a trained model's: narrow ones repeat one token for
# ever, and would pass without attention. Tests check how many tokens are distinct.
WEIGHT_STD = 0.2
NORM_STD = 1.0
VOCAB_SIZE = 512
MAX_CONTEXT = 256

_SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": MAX_CONTEXT,
    "eos_token_id": None,
    "bos_token_id": None,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk and in transformers."""

    path: Path
    model: Any
    generated: dict[tuple[int, ...], list[int]] = field(default_factory=dict)

    def generate(self, prompt: list[int], num_tokens: int = 64) -> list[int]:
        """What transformers generates greedily in float32, without end-of-sequence."""
        if tuple(prompt) not in self.generated:
            self.generate_all([prompt])
        return self.generated[tuple(prompt)][:num_tokens]

    def generate_all(self, prompts: list[list[int]]) -> None:
        """The same for many prompts in one padded batch, which is a good deal faster."""
        width = max(map(len, prompts))
        padded = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        out = self.model.generate(
            padded, attention_mask=mask, max_new_tokens=64, do_sample=False, pad_token_id=0
        )
        for prompt, tokens in zip(prompts, out[:, width:].tolist(), strict=True):
            self.generated[tuple(prompt)] = tokens

    @torch.inference_mode()
    def logits(self, tokens: list[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """float32 [tokens, vocab] of one causal pass computed in dtype"""
        model = self.model
        if dtype != torch.float32:
            model = transformers.AutoModelForCausalLM.from_pretrained(self.path, dtype=dtype)
        found: torch.Tensor = model(torch.tensor([tokens])).logits[0]
        return found.float()


@dataclass(frozen=True)
class Recipe:
    """How to build a checkpoint; the name is the test's id."""

    name: str
    architecture: str
    changes: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def config(self) -> Any:
        kind = self.architecture.removesuffix("ForCausalLM")
        return getattr(transformers, f"{kind}Config")(**{**_SHAPE, **self.changes})

    def build(self, path: Path) -> Checkpoint:
        torch.manual_seed(0)
        model = getattr(transformers, self.architecture)(self.config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.normal_(0, NORM_STD if "norm" in name else WEIGHT_STD)
        model.save_pretrained(path)
        return Checkpoint(path, model)


RECIPES = [
    Recipe("llama", "LlamaForCausalLM"),
    Recipe(
        "llama3-biased-tied",
        "LlamaForCausalLM",
        {
            "attention_bias": True,
            "mlp_bias": True,
            "head_dim": 32,
            "tie_word_embeddings": True,
            "rope_parameters": _LLAMA3_ROPE,
        },
    ),
    Recipe("qwen2-tied", "Qwen2ForCausalLM", {"tie_word_embeddings": True}),
    Recipe("qwen2-no-gqa", "Qwen2ForCausalLM", {"num_key_value_heads": 6}),
    Recipe("qwen3", "Qwen3ForCausalLM", {"head_dim": 32}),
    Recipe(
        "qwen3-biased-tied",
        "Qwen3ForCausalLM",
        {"attention_bias": True, "tie_word_embeddings": True},
    ),
]


def prompts(num_prompts: int, seed: int = 0, longest: int = 90) -> list[list[int]]:
    """Of different lengths, the first of one token, the last two longer than two pages."""
    source = random.Random(seed)
    lengths = [1, *(source.randrange(2, longest) for _ in range(num_prompts - 3)), 40, longest]
    return [[source.randrange(VOCAB_SIZE) for _ in range(n)] for n in lengths[:num_prompts]]
