"""What a decoder is made of, read strictly from config.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pie_backend.base import BackendError


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """Stretches the slow frequencies by `factor`, keeps the fast ones, blends between."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_context: int


@dataclass(frozen=True, slots=True)
class RopeConfig:
    theta: float
    scaling: Llama3Scaling | None


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """A pre-norm decoder with grouped-query attention, RoPE and a SwiGLU MLP."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    max_context: int
    tied_embeddings: bool
    rope: RopeConfig
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    qk_norm: bool


class Fields:
    """Typed access to a JSON object; every complaint names the file and the key."""

    def __init__(self, values: dict[str, Any], where: Path | str) -> None:
        self._values = values
        self._where = where

    def get(self, key: str) -> Any:
        return self._values.get(key)

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._values.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 40:
            raise self.error(key, "a positive integer")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._values.get(key)
        value = default if value is None else value
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e30:
            raise self.error(key, "a positive number")
        return float(value)

    def boolean(self, key: str, default: bool = False) -> bool:
        value = self._values.get(key)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise self.error(key, "true or false")
        return value

    def section(self, key: str) -> Fields | None:
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.error(key, "an object")
        return Fields(value, f"{self._where}: {key}")

    def error(self, key: str, expected: str) -> BackendError:
        return BackendError(f"{self._where}: `{key}` is {self.get(key)!r}; expected {expected}")


def decoder_config(
    fields: Fields,
    *,
    head_dim: int | None = None,
    qkv_bias: bool = False,
    output_bias: bool = False,
    mlp_bias: bool = False,
    qk_norm: bool = False,
) -> DecoderConfig:
    """Reads what all architectures share; refuses what is switched on but not supported."""
    _refuse_unsupported(fields)
    hidden_size = fields.integer("hidden_size")
    num_heads = fields.integer("num_attention_heads")
    num_kv_heads = fields.integer("num_key_value_heads", num_heads)
    if num_heads % num_kv_heads:
        raise fields.error("num_key_value_heads", f"a divisor of {num_heads}")
    max_context = fields.integer("max_position_embeddings", 2048)
    head_dim = fields.integer("head_dim", head_dim or max(1, hidden_size // num_heads))
    if head_dim % 2:
        raise fields.error("head_dim", "an even number")
    return DecoderConfig(
        vocab_size=fields.integer("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=fields.integer("intermediate_size"),
        num_layers=fields.integer("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        max_context=max_context,
        tied_embeddings=fields.boolean("tie_word_embeddings"),
        rope=_rope_config(fields, max_context),
        qkv_bias=qkv_bias,
        output_bias=output_bias,
        mlp_bias=mlp_bias,
        qk_norm=qk_norm,
    )


def _refuse_unsupported(fields: Fields) -> None:
    if fields.get("hidden_act") not in (None, "silu", "swish"):
        raise fields.error("hidden_act", "silu, the only supported activation")
    if fields.get("quantization_config") is not None:
        raise fields.error("quantization_config", "none: quantized checkpoints are not supported")
    layer_types = fields.get("layer_types") or []
    if not isinstance(layer_types, list) or set(map(str, layer_types)) - {"full_attention"}:
        raise fields.error("layer_types", "full_attention everywhere: no sliding windows yet")
    # Without layer_types (older checkpoints) the flag alone decides.
    if not layer_types and fields.boolean("use_sliding_window"):
        raise fields.error("use_sliding_window", "false: no sliding windows yet")


def _rope_config(fields: Fields, max_context: int) -> RopeConfig:
    """transformers 5 writes `rope_parameters`; older files `rope_theta` and `rope_scaling`."""
    rope = fields.section("rope_parameters") or fields.section("rope_scaling")
    if rope is None:
        return RopeConfig(fields.number("rope_theta", 10000.0), None)
    theta = rope.number("rope_theta", fields.number("rope_theta", 10000.0))
    if rope.number("partial_rotary_factor", 1.0) != 1.0:
        raise rope.error("partial_rotary_factor", "1")
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return RopeConfig(theta, None)
    if kind != "llama3":
        raise rope.error("rope_type", "default or llama3, the supported kinds")
    return RopeConfig(theta, _llama3_scaling(rope, max_context))


def _llama3_scaling(rope: Fields, max_context: int) -> Llama3Scaling:
    scaling = Llama3Scaling(
        factor=rope.number("factor"),
        low_freq_factor=rope.number("low_freq_factor"),
        high_freq_factor=rope.number("high_freq_factor"),
        original_max_context=rope.integer("original_max_position_embeddings", max_context),
    )
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        raise rope.error("high_freq_factor", "more than low_freq_factor")
    return scaling
