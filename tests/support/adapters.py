"""Random LoRA adapters written by PEFT, and the models that PEFT makes of them by merging."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import peft
import torch

from support.checkpoints import Checkpoint

# As wide as the random checkpoints themselves, so that hardly a token stays the same.
_STD = 0.2
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]


def write_adapter(base: Checkpoint, path: Path, seed: int = 0, **settings: Any) -> Checkpoint:
    """Saves an adapter under `path`; the answer is the checkpoint that it is merged into."""
    config = peft.LoraConfig(**{"task_type": "CAUSAL_LM", **settings})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(copy.deepcopy(base.model), config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.normal_(0, _STD, generator=generator)
        model.save_pretrained(str(path))
        loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base.model), path)
        return Checkpoint(path, loaded.merge_and_unload().eval())


def change_config(path: Path, **changes: Any) -> None:
    """Rewrites keys of a saved adapter's configuration."""
    file = path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
