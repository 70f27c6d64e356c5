"""Adapters for backends that compute nothing: small, valid files without a model behind them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from pie_backend.adapter_dir import CONFIG_FILE, WEIGHTS_FILE


def write_adapter_files(path: Path, *, num_floats: int = 2, **settings: Any) -> Path:
    """`settings` go into the configuration; the one tensor holds zeros."""
    path.mkdir(parents=True, exist_ok=True)
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"]}
    (path / CONFIG_FILE).write_text(json.dumps({**config, **settings}))
    tensor = {"dtype": "F32", "shape": [1, num_floats], "data_offsets": [0, 4 * num_floats]}
    header = json.dumps({"base_model.model.x.lora_A.weight": tensor}).encode()
    data = struct.pack("<Q", len(header)) + header + bytes(4 * num_floats)
    (path / WEIGHTS_FILE).write_bytes(data)
    return path
