"""How much host memory a backend will take, told before it is built and without torch."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

from pie_backend.batch import BackendConfig
from pie_backend.model_dir import ModelDir, resolve

_PROCESS_BYTES = 450 << 20
"""Of a worker without a model: the interpreter, torch, and what a batch needs."""
_LOADED_SHARE = 1.3
"""Of the weights in memory to those in the files: tied ones are there twice, and the allocator
keeps some of what loading took. Measured, it was at most that."""
_ITEM_BYTES = {"float32": 4, "bfloat16": 2}


def footprint_bytes(config: BackendConfig, num_pages: int | None = None) -> int | None:
    """Weights, pages and the process; None: it is not the host's memory that counts.

    `num_pages` is for a pool that is sized from what is free.
    Raises: BackendError: there is no such model.
    """
    if config.kind != "engine" or config.device not in ("auto", "cpu"):
        return None
    model = resolve(config.path)
    item_bytes = _item_bytes(config, model)
    pages = config.host_pages + (config.kv_pages or num_pages or 1)
    page_bytes = _numbers_per_token(model) * config.page_size * item_bytes
    weight_bytes = int(_LOADED_SHARE * _num_weights(model.path) * item_bytes)
    return _PROCESS_BYTES + weight_bytes + pages * page_bytes


def _item_bytes(config: BackendConfig, model: ModelDir) -> int:
    stored = model.config.get("dtype") or model.config.get("torch_dtype")
    dtype = config.dtype if config.dtype != "auto" else stored
    return _ITEM_BYTES.get(str(dtype), 4)


def _numbers_per_token(model: ModelDir) -> int:
    config = model.config
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    kv_heads = config.get("num_key_value_heads") or heads
    return int(2 * config["num_hidden_layers"] * kv_heads * head_dim)


def _num_weights(directory: Path) -> int:
    """From the headers of the files."""
    total = 0
    for path in directory.glob("*.safetensors"):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
        total += sum(map(math.prod, shapes))
    return total
