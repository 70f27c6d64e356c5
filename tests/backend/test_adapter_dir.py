"""Adapters on the disk: what is read of them, and what is refused by its name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from pie_backend.adapter_dir import CONFIG_FILE, WEIGHTS_FILE, read_adapter
from pie_backend.base import AdapterError
from support.adapter_files import write_adapter_files

LARGE = 1 << 20


def refusal(path: Path, max_bytes: int = LARGE) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        read_adapter(path, max_bytes)
    return caught.value


def test_what_is_read(tmp_path: Path) -> None:
    """Shapes from the file's header, the configuration, and one digest over both files."""
    write_adapter_files(tmp_path, r=3, lora_alpha=6)
    found = read_adapter(tmp_path, LARGE)
    assert {"base_model.model.x.lora_A.weight": (1, 2)} == found.shapes
    assert (3, 6.0, 2.0) == (found.config.rank, found.config.alpha, found.config.scale_of("x"))
    again = read_adapter(tmp_path, LARGE)
    assert (found.digest, 64) == (again.digest, len(again.digest))
    write_adapter_files(tmp_path, r=3, lora_alpha=7)
    assert found.digest != read_adapter(tmp_path, LARGE).digest


def test_ranks_and_scales_by_pattern(tmp_path: Path) -> None:
    """The first pattern that the end of a module's name matches decides, as in PEFT."""
    write_adapter_files(
        tmp_path,
        r=8,
        lora_alpha=16,
        use_rslora=True,
        rank_pattern={"layers.1.q_proj": 4, "q_proj": 2},
        alpha_pattern={r"layers\.\d+\.q_proj": 5},
    )
    config = read_adapter(tmp_path, LARGE).config
    ranks = [config.rank_of(f"m.layers.{one}") for one in ("1.q_proj", "2.q_proj", "2.xq_proj")]
    assert [4, 2, 8] == ranks
    assert config.scale_of("m.layers.2.q_proj") == pytest.approx(5 / math.sqrt(2))
    assert config.scale_of("m.layers.2.v_proj") == pytest.approx(16 / math.sqrt(8))


@pytest.mark.parametrize(
    ("target", "hit", "missed"),
    [
        (["q_proj"], "a.q_proj", "a.xq_proj"),
        (["a.q_proj"], "a.q_proj", "b.q_proj"),
        (r".*\.[qk]_proj", "a.k_proj", "a.v_proj"),
        ("all-linear", "anything", None),
    ],
)
def test_targets(tmp_path: Path, target: Any, hit: str, missed: str | None) -> None:
    """Names are ends of module names, a text is a regular expression over the whole."""
    write_adapter_files(tmp_path, target_modules=target)
    config = read_adapter(tmp_path, LARGE).config
    assert config.targets(hit)
    assert missed is None or not config.targets(missed)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "IA3"),
        ("task_type", "SEQ_CLS"),
        ("bias", "all"),
        ("bias", "lora_only"),
        ("lora_bias", True),
        ("use_dora", True),
        ("use_qalora", True),
        ("use_bdlora", {"nblocks": 2}),
        ("fan_in_fan_out", True),
        ("modules_to_save", ["embed_tokens", "lm_head"]),
        ("exclude_modules", ["q_proj"]),
        ("layers_to_transform", [0]),
        ("layers_pattern", "layers"),
        ("layer_replication", [[0, 2]]),
        ("init_lora_weights", "pissa"),
        ("target_parameters", ["mlp.experts.gate_up_proj"]),
        ("trainable_token_indices", [1]),
        ("alora_invocation_tokens", [1, 2]),
        ("arrow_config", {"top_k": 3}),
        ("some_key_of_the_future", True),
    ],
)
def test_what_is_not_supported_is_refused_by_name(tmp_path: Path, key: str, value: Any) -> None:
    """Rather than computing something else than PEFT does."""
    write_adapter_files(tmp_path, **{key: value})
    error = refusal(tmp_path)
    assert "unsupported" == error.code
    assert f"`{key}` is {value!r}" in error.message


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"r": 0}, "ranks must be from 1 to 1024"),
        ({"rank_pattern": {"q_proj": 4096}}, "ranks must be from 1 to 1024"),
        ({"r": "eight"}, r"Expected `int`, got `str` - at `\$.r`"),
        ({"target_modules": "(q_proj"}, "is no regular expression"),
        ({"alpha_pattern": {"[": 1}}, "is no regular expression"),
        ({"target_modules": 3}, "target_modules"),
    ],
)
def test_what_makes_no_sense(tmp_path: Path, settings: dict[str, Any], complaint: str) -> None:
    """Named by file and key."""
    write_adapter_files(tmp_path, **settings)
    error = refusal(tmp_path)
    assert "invalid-argument" == error.code
    assert str(tmp_path / CONFIG_FILE) in error.message
    with pytest.raises(AdapterError, match=complaint):
        read_adapter(tmp_path, LARGE)


def test_files_that_are_not_there_or_not_readable(tmp_path: Path) -> None:
    """Missing, too large, not JSON, not safetensors."""
    assert ("not-found", True) == (refusal(tmp_path).code, CONFIG_FILE in refusal(tmp_path).message)
    write_adapter_files(tmp_path)
    (tmp_path / WEIGHTS_FILE).unlink()
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    assert WEIGHTS_FILE in refusal(tmp_path).message
    assert "not-found" == refusal(tmp_path).code
    write_adapter_files(tmp_path)
    assert "exhausted" == refusal(tmp_path, max_bytes=8).code
    for data in (b"", b"\xff" * 20, b"\x02" + bytes(7) + b"[]"):
        (tmp_path / WEIGHTS_FILE).write_bytes(data)
        assert "not a readable safetensors file" in refusal(tmp_path).message
    for text in ("{", "[]", json.dumps("LORA"), "{}"):
        (tmp_path / CONFIG_FILE).write_text(text)
        assert refusal(tmp_path).code in {"invalid-argument", "unsupported"}
