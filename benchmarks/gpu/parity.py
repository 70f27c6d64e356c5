"""Stage `parity`: a whole model against `transformers`, with random weights made on the spot."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch

from benchmarks.gpu.rows import Found, Task
from benchmarks.gpu.setup import Setup, config
from pie_backend.batch import Row, Sampling
from pie_backend.engine.engine import Engine, build_on
from pie_backend.engine.ragged import flatten
from pie_backend.model_dir import resolve
from support.checkpoints import Checkpoint, Recipe, prompts
from support.driver import Driver

_TIE = 1e-3
"""Between the reference's two likeliest: products on two devices differ in their last bits."""
_LAYERS = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}
_RECIPES = (
    Recipe("llama", "LlamaForCausalLM", {**_LAYERS, "num_attention_heads": 4}),
    Recipe("qwen2", "Qwen2ForCausalLM", {**_LAYERS, "num_attention_heads": 14}),
    Recipe("qwen3", "Qwen3ForCausalLM", {**_LAYERS, "num_attention_heads": 2}),
)


def tasks(setup: Setup) -> list[Task]:
    kinds = {
        "greedy, float32": _greedy,
        "logits, bfloat16": _logits,
        "seeds, float32": _seeds,
    }
    return [
        Task(f"{name}, {recipe.name}", partial(task, setup, recipe))
        for name, task in kinds.items()
        for recipe in _RECIPES
    ]


@cache
def _checkpoint(recipe_name: str) -> Checkpoint:
    recipe = next(one for one in _RECIPES if one.name == recipe_name)
    return recipe.build(Path(mkdtemp(prefix="pie-parity-")))


def _engine(setup: Setup, checkpoint: Checkpoint, dtype: str) -> Engine:
    full = config(setup, str(checkpoint.path), dtype=dtype, kv_pages=200)
    return build_on(setup.device, full, resolve(full.path))


def _greedy(setup: Setup, recipe: Recipe) -> Found:
    """Eight prompts in chunks; where a token differs, how far the reference's best are apart."""
    checkpoint, chosen = _checkpoint(recipe.name), prompts(16)[::2]
    driver = Driver(_engine(setup, checkpoint, "float32"))
    made = driver.run([driver.add(prompt, 48) for prompt in chosen], chunk=33)
    gaps = [
        gap
        for prompt, tokens in zip(chosen, made, strict=True)
        if (gap := _gap(checkpoint, prompt, tokens)) is not None
    ]
    ok = all(gap < _TIE for gap in gaps)
    return Found(ok, {"prompts": 8.0, "ties": float(len(gaps)), "widest": max(gaps, default=0.0)})


def _gap(checkpoint: Checkpoint, prompt: list[int], tokens: list[int]) -> float | None:
    expected = checkpoint.generate(prompt, len(tokens))
    if tokens == expected:
        return None
    first = next(i for i, pair in enumerate(zip(tokens, expected, strict=True)) if len({*pair}) > 1)
    top = checkpoint.logits(prompt + expected[:first])[-1].topk(2).values
    return float(top[0] - top[1])


def _logits(setup: Setup, recipe: Recipe) -> Found:
    """Teacher-forced; the error may be twice that of transformers in bfloat16 on that device."""
    checkpoint, prompt = _checkpoint(recipe.name), prompts(16)[-1]
    tokens = prompt + checkpoint.generate(prompt, 64)
    exact = checkpoint.logits(tokens)
    computed = _computed(_engine(setup, checkpoint, "bfloat16"), tokens, setup.place)
    mine = (computed - exact).abs()
    theirs = (_transformers(checkpoint, tokens, setup.place) - exact).abs()
    agree = float((computed.argmax(-1) == exact.argmax(-1)).double().mean())
    values: dict[str, float | str] = {
        "mean error": float(mine.mean()),
        "of transformers": float(theirs.mean()),
        "same token as float32": agree,
    }
    return Found(bool(mine.mean() < 2 * theirs.mean()), values)


@torch.inference_mode()
def _computed(engine: Engine, tokens: list[int], place: torch.device) -> torch.Tensor:
    """float32 [tokens, vocab] of one prefill"""
    decoder, attention = engine._decoder, engine._attention
    assert decoder is not None
    assert attention is not None
    flat = flatten([Row(tokens, 0, list(range(20)))], engine.info.page_size, place)
    hidden = decoder.hidden_states(flat.tokens, flat.positions, attention.plan(flat))
    return decoder.logits(hidden).float().cpu()


@torch.inference_mode()
def _transformers(checkpoint: Checkpoint, tokens: list[int], place: torch.device) -> torch.Tensor:
    import transformers

    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoint.path, dtype=torch.bfloat16
    )
    logits: torch.Tensor = model.to(place)(torch.tensor([tokens], device=place)).logits[0]
    return logits.float().cpu()


def _seeds(setup: Setup, recipe: Recipe) -> Found:
    """Sampled tokens of five seeds, together here and one by one on the host's processor."""
    from pie_backend.engine.devices.cpu import CpuDevice

    checkpoint = _checkpoint(recipe.name)
    wanted = [Sampling(0.9, 50, 0.95, 0.01, seed=seed) for seed in range(5)]
    there = Driver(_engine(setup, checkpoint, "float32"))
    together = there.run([there.add(prompts(16)[i], 24, wanted[i]) for i in range(5)], chunk=9)
    full = config(setup, str(checkpoint.path), dtype="float32", kv_pages=200)
    here = Driver(build_on(CpuDevice(), full, resolve(full.path)), seed=3)
    alone = [here.run([here.add(prompts(16)[i], 24, wanted[i])])[0] for i in range(5)]
    same = sum(a == b for a, b in zip(together, alone, strict=True))
    return Found(same >= 4, {"texts": 5.0, "the same": float(same)})
