"""Write a trained model as a Hugging Face directory, and read one back.

`python -m training.package RUN_DIR OUT_DIR` installs the latest checkpoint of a run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from dataclasses import asdict, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from training.model import Crumb, Shape

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def config(shape: Shape, tokenizer: Tokenizer) -> dict[str, object]:
    end, pad = tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "bos_token_id": None,
        "eos_token_id": end,
        "pad_token_id": pad,
        **asdict(shape),
    }


def generation_config(tokenizer: Tokenizer) -> dict[str, object]:
    end, pad = tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")
    return {"eos_token_id": [end, pad], "pad_token_id": pad, "do_sample": False}


def write(weights: dict[str, Tensor], shape: Shape, tokenizer_dir: Path, out_dir: Path) -> None:
    """Replace files one by one by renaming, so that a reader never sees half a file."""
    out_dir.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    _write_json(out_dir / "config.json", config(shape, tokenizer))
    _write_json(out_dir / "generation_config.json", generation_config(tokenizer))
    if tokenizer_dir.resolve() != out_dir.resolve():
        for name in TOKENIZER_FILES:
            shutil.copyfile(tokenizer_dir / name, out_dir / name)
    half = {name: weight.to(torch.bfloat16).contiguous() for name, weight in weights.items()}
    partial = out_dir / "model.safetensors.partial"
    save_file(half, partial, metadata={"format": "pt"})
    partial.chmod(0o644)  # safetensors makes it private
    os.replace(partial, out_dir / "model.safetensors")


def _write_json(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read(model_dir: Path) -> tuple[Crumb, Tokenizer]:
    """The model in float32 and its tokenizer."""
    found = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    shape = Shape(**{field.name: found[field.name] for field in fields(Shape)})
    model = Crumb(shape)
    weights = load_file(model_dir / "model.safetensors")
    model.load_state_dict({name: weight.float() for name, weight in weights.items()})
    return model.eval(), Tokenizer.from_file(str(model_dir / "tokenizer.json"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("out_dir", type=Path)
    arguments = parser.parse_args()
    model, _ = read(arguments.run_dir)
    write(dict(model.state_dict()), model.shape, arguments.run_dir, arguments.out_dir)


if __name__ == "__main__":
    main()
