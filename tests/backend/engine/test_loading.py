"""A model directory that cannot be run is a BackendError with the reason, never anything else."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pie_backend.base import BackendError
from pie_backend.batch import BackendConfig
from pie_backend.engine.architectures.llama import read_config
from pie_backend.engine.config import Fields
from pie_backend.engine.engine import Engine, build_engine
from support.checkpoints import Checkpoint

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def copy(qwen3: Checkpoint, tmp_path: Path) -> Path:
    """A working checkpoint to break."""
    return Path(shutil.copytree(qwen3.path, tmp_path / "model"))


def build(path: Path, **changes: Any) -> Engine:
    settings: dict[str, Any] = {"name": "test", "path": str(path), "kv_pages": 4, "num_threads": 1}
    return build_engine(BackendConfig(**{**settings, **changes}))


def edit_config(path: Path, edit: Edit) -> None:
    config = json.loads((path / "config.json").read_text())
    edit(config)
    (path / "config.json").write_text(json.dumps(config))


def edit_weights(path: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path / "model.safetensors")
    edit(tensors)
    save_file(tensors, path / "model.safetensors")


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda c: c.update(architectures=["BertModel"]), "BertModel is not supported; these are:"),
        (lambda c: c.pop("architectures"), "names no model class"),
        (lambda c: c.update(hidden_act="gelu"), "silu, the only supported activation"),
        (lambda c: c.update(quantization_config={}), "quantized checkpoints are not supported"),
        (lambda c: c.update(layer_types=["sliding_attention"] * 3), "no sliding windows yet"),
        (lambda c: c.update(layer_types=None, use_sliding_window=True), "no sliding windows yet"),
        (lambda c: c.update(rope_parameters={"rope_type": "yarn"}), "default or llama3"),
        (lambda c: c.update(rope_parameters={"rope_type": "llama3"}), "`factor` is None"),
        (lambda c: c.update(num_key_value_heads=4), "`num_key_value_heads` is 4; expected a divis"),
        (lambda c: c.update(head_dim=15), "an even number"),
        (
            lambda c: c.update(hidden_size="wide"),
            "`hidden_size` is 'wide'; expected a positive int",
        ),
        (lambda c: c.pop("vocab_size"), "`vocab_size` is None"),
        (lambda c: c.update(intermediate_size=161), "mlp.gate_proj.weight has shape [160, 96]"),
        (lambda c: c.update(num_hidden_layers=4), "tensor model.layers.3."),
        (lambda c: c.update(eos_token_id="</s>"), "`eos_token_id` is '</s>'"),
    ],
)
def test_unusable_config(copy: Path, edit: Edit, complaint: str) -> None:
    """The message names what is wrong, and what would be right."""
    edit_config(copy, edit)
    (copy / "generation_config.json").unlink()
    with pytest.raises(BackendError) as caught:
        build(copy)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda t: t.pop("model.norm.weight"), "tensor model.norm.weight is missing"),
        (lambda t: t.update({"model.norm.weight": torch.ones(5)}), "has shape [5]; config.json wa"),
        (lambda t: t.update({"model.norm.weight": torch.ones(96).int()}), "only float tensors"),
        (lambda t: t.pop("lm_head.weight"), "tensor lm_head.weight is missing"),
    ],
)
def test_unusable_weights(
    copy: Path, edit: Callable[[dict[str, torch.Tensor]], object], complaint: str
) -> None:
    """A tensor that is missing, misshapen or of the wrong type is named."""
    edit_weights(copy, edit)
    with pytest.raises(BackendError) as caught:
        build(copy)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("index", "complaint"),
    [
        ({}, "`weight_map` is missing"),
        ({"weight_map": {"lm_head.weight": "../secret"}}, "expected the name of a file here"),
        ({"weight_map": {"lm_head.weight": 7}}, "expected the name of a file here"),
        ({"weight_map": {"lm_head.weight": "gone.safetensors"}}, "gone.safetensors is missing"),
    ],
)
def test_unusable_index(copy: Path, index: dict[str, Any], complaint: str) -> None:
    """A shard index cannot point outside the directory or to nothing."""
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BackendError) as caught:
        build(copy)
    assert complaint in str(caught.value)


def test_no_safetensors(copy: Path) -> None:
    """A checkpoint in another format says what to do."""
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(BackendError, match="convert it to safetensors"):
        build(copy)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"device": "mps"}, "device 'mps' is unknown; supported: auto, cpu, cuda, metal"),
        ({"dtype": "float16"}, "dtype 'float16' is not supported; supported: auto, float32, bf"),
        ({"kv_pages": 10**12}, "pages fit"),
    ],
)
def test_unusable_settings(copy: Path, changes: dict[str, Any], complaint: str) -> None:
    """What this version cannot do is refused with what it can."""
    with pytest.raises(BackendError) as caught:
        build(copy, **changes)
    assert complaint.removesuffix("bf") in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "generation_config.json"])
def test_damaged_files(copy: Path, name: str) -> None:
    """Truncated and overwritten files load, or raise BackendError; nothing else."""
    whole = (copy / name).read_bytes()
    source = random.Random(name)
    # The header of a safetensors file is where damage is dangerous.
    reach = min(len(whole), 6000)
    for _ in range(25):
        damaged = bytearray(whole)
        for _ in range(source.randrange(1, 6)):
            damaged[source.randrange(reach)] = source.randrange(256)
        if source.random() < 0.3:
            del damaged[source.randrange(reach) :]
        (copy / name).write_bytes(damaged)
        with contextlib.suppress(BackendError):
            build(copy).close()


@pytest.mark.parametrize(
    ("stored", "wanted", "expected"),
    [
        (torch.bfloat16, "auto", "bfloat16"),
        (torch.float16, "auto", "float32"),
        (torch.float32, "auto", "float32"),
        (torch.float32, "bfloat16", "bfloat16"),
        (torch.bfloat16, "float32", "float32"),
    ],
)
def test_dtype(copy: Path, stored: torch.dtype, wanted: str, expected: str) -> None:
    """`auto` is the checkpoint's dtype; float16, which is not computed in, becomes float32."""
    edit_weights(copy, lambda t: t.update({k: v.to(stored) for k, v in t.items()}))
    edit_config(copy, lambda c: c.update(dtype=str(stored).removeprefix("torch.")))
    engine = build(copy, dtype=wanted)
    assert engine.info.dtype == expected
    assert engine.info.page_bytes == 2 * 3 * 2 * 32 * 16 * (2 if expected == "bfloat16" else 4)


def test_describes_itself(copy: Path) -> None:
    """What the scheduler is told comes from the files; generation_config wins for eos."""
    edit_config(copy, lambda c: c.update(eos_token_id=5))
    (copy / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    info = build(copy, page_size=8).info
    assert info.architecture == "Qwen3ForCausalLM"
    assert (info.vocab_size, info.max_context) == (512, 256)
    assert (info.page_size, info.num_pages) == (8, 4)
    assert info.eos_tokens == [7, 9]
    assert (info.device, info.name) == ("cpu", "test")


def test_older_rope_keys() -> None:
    """`rope_theta` and `rope_scaling`, as older checkpoints have them, mean the same."""
    shape = {
        "vocab_size": 8,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling["original_max_position_embeddings"] = 64
    old = {**shape, "rope_theta": 5e5, "rope_scaling": {"type": "llama3", **scaling}}
    new = {**shape, "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **scaling}}
    assert read_config(Fields(old, "old")) == read_config(Fields(new, "new"))
    assert read_config(Fields({**shape, "rope_theta": 7}, "plain")).rope.theta == 7.0
