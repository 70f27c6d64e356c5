"""Llama 2 and 3: optional biases everywhere, llama3 RoPE scaling."""

from __future__ import annotations

from pie_backend.engine.config import DecoderConfig, Fields, decoder_config


def read_config(fields: Fields) -> DecoderConfig:
    attention_bias = fields.boolean("attention_bias")
    return decoder_config(
        fields,
        qkv_bias=attention_bias,
        output_bias=attention_bias,
        mlp_bias=fields.boolean("mlp_bias"),
    )
