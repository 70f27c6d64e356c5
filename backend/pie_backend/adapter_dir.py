"""A LoRA adapter as PEFT writes it: configuration, tensor shapes, digest. Never imports torch."""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pie_backend.base import AdapterError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
MAX_RANK = 1024
_MAX_CONFIG_BYTES = 1 << 20
_HEADER_BYTES = struct.Struct("<Q")
_ALL_LINEAR = "all-linear"

# These say how the adapter was made, and nothing about what it computes.
_HISTORY = frozenset(
    "auto_mapping base_model_name_or_path eva_config inference_mode lora_dropout megatron_core "
    "peft_version qalora_group_size revision".split()
)
# Others change the model's own weights when they are loaded.
_PLAIN_INITS = (None, True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """What an adapter changes and how strongly; the rules are those of PEFT."""

    rank: int
    alpha: float
    target_modules: str | tuple[str, ...]
    """A regular expression over whole module names, or ends of them."""
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]
    use_rslora: bool

    def targets(self, module: str) -> bool:
        wanted = self.target_modules
        if wanted == _ALL_LINEAR:
            return True
        if isinstance(wanted, str):
            return re.fullmatch(wanted, module) is not None
        return any(module == name or module.endswith(f".{name}") for name in wanted)

    def rank_of(self, module: str) -> int:
        return int(_of_pattern(self.rank_pattern, module, self.rank))

    def scale_of(self, module: str) -> float:
        rank = self.rank_of(module)
        alpha = _of_pattern(self.alpha_pattern, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def _of_pattern(pattern: dict[str, int] | dict[str, float], module: str, default: float) -> float:
    for key, value in pattern.items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """Both files of one moment: a change on the disk does not reach what was read."""

    path: Path
    config: LoraConfig
    shapes: dict[str, tuple[int, ...]]
    """Of every tensor, by name."""
    weights: bytes
    """The safetensors file."""
    digest: str
    """sha256 over both files, hexadecimal."""


def read_adapter(path: Path, max_bytes: int) -> AdapterFiles:
    """
    Raises:
        AdapterError: there is none, it cannot be read, it is larger than `max_bytes`, or it does
            something that is not supported.
    """
    config = _read_file(path / CONFIG_FILE, _MAX_CONFIG_BYTES)
    weights = _read_file(path / WEIGHTS_FILE, max_bytes)
    digest = hashlib.sha256(hashlib.sha256(config).digest() + hashlib.sha256(weights).digest())
    return AdapterFiles(
        path=path,
        config=_parse_config(path / CONFIG_FILE, config),
        shapes=_read_shapes(path / WEIGHTS_FILE, weights),
        weights=weights,
        digest=digest.hexdigest(),
    )


def _read_file(path: Path, max_bytes: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise AdapterError("exhausted", f"{path} has {size} bytes; at most {max_bytes} fit")
        return path.read_bytes()
    except FileNotFoundError:
        raise AdapterError(
            "not-found",
            f"{path} is missing; expected {CONFIG_FILE} and {WEIGHTS_FILE} as PEFT writes them "
            "(`save_pretrained(..., safe_serialization=True)`)",
        ) from None
    except OSError as error:
        raise AdapterError("internal", f"{path} cannot be read: {error}") from error


class _ConfigFile(msgspec.Struct):
    """The keys that are understood; `_refuse_unsupported` has seen to all others."""

    r: int = 8
    lora_alpha: float = 8.0
    target_modules: str | list[str] = []
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None
    use_rslora: bool = False


def _parse_config(path: Path, data: bytes) -> LoraConfig:
    try:
        values = json.loads(data)
        read = msgspec.convert(values, _ConfigFile)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise AdapterError("invalid-argument", f"{path} cannot be used: {error}") from None
    _refuse_unsupported(path, values)
    targets = read.target_modules
    config = LoraConfig(
        rank=read.r,
        alpha=read.lora_alpha,
        target_modules=targets if isinstance(targets, str) else tuple(targets),
        rank_pattern=read.rank_pattern or {},
        alpha_pattern=read.alpha_pattern or {},
        use_rslora=read.use_rslora,
    )
    _check_numbers(path, config)
    return config


def _refuse_unsupported(path: Path, values: dict[str, Any]) -> None:
    """What PEFT would do and Pie does not is refused by the name of its key."""
    allowed: dict[str, tuple[object, ...]] = {
        "peft_type": ("LORA",),
        "task_type": (None, "CAUSAL_LM"),
        "bias": (None, "none"),
        "init_lora_weights": _PLAIN_INITS,
    }
    for key, value in values.items():
        if key in _ConfigFile.__struct_fields__ or key in _HISTORY:
            continue
        expected = allowed.get(key)
        if expected is None and value:
            raise _unsupported(path, key, value, "leave it unset")
        if expected is not None and value not in expected:
            raise _unsupported(path, key, value, f"supported: {', '.join(map(repr, expected))}")
    if values.get("peft_type") != "LORA":
        raise _unsupported(path, "peft_type", None, "supported: 'LORA'")


def _unsupported(path: Path, key: str, value: object, what_to_do: str) -> AdapterError:
    return AdapterError(
        "unsupported", f"{path}: `{key}` is {value!r}, which is not supported; {what_to_do}"
    )


def _check_numbers(path: Path, config: LoraConfig) -> None:
    ranks = [config.rank, *config.rank_pattern.values()]
    if not all(1 <= rank <= MAX_RANK for rank in ranks):
        raise AdapterError("invalid-argument", f"{path}: ranks must be from 1 to {MAX_RANK}")
    patterns = [*config.rank_pattern, *config.alpha_pattern]
    if isinstance(config.target_modules, str):
        patterns.append(config.target_modules)
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise AdapterError(
                "invalid-argument", f"{path}: {pattern!r} is no regular expression: {error}"
            ) from None


class _Tensor(msgspec.Struct):
    dtype: str
    shape: list[int]


def _read_shapes(path: Path, data: bytes) -> dict[str, tuple[int, ...]]:
    """From the header, which tells them before anything of the data is touched."""
    try:
        (length,) = _HEADER_BYTES.unpack_from(data)
        header = msgspec.json.decode(data[8 : 8 + length], type=dict[str, Any])
        header.pop("__metadata__", None)
        tensors = msgspec.convert(header, dict[str, _Tensor])
    except (struct.error, msgspec.MsgspecError) as error:
        raise AdapterError(
            "invalid-argument", f"{path} is not a readable safetensors file: {error}"
        ) from None
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
