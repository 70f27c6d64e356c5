"""Qwen3: query and key are normalised per head before RoPE; head_dim is free of hidden_size."""

from __future__ import annotations

from pie_backend.engine.config import DecoderConfig, Fields, decoder_config

_DEFAULT_HEAD_DIM = 128


def read_config(fields: Fields) -> DecoderConfig:
    attention_bias = fields.boolean("attention_bias")
    return decoder_config(
        fields,
        head_dim=_DEFAULT_HEAD_DIM,
        qkv_bias=attention_bias,
        output_bias=attention_bias,
        qk_norm=True,
    )
