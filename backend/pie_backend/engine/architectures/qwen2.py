"""Qwen2 and Qwen2.5: always a bias on query, key and value, never elsewhere."""

from __future__ import annotations

from pie_backend.engine.config import DecoderConfig, Fields, decoder_config


def read_config(fields: Fields) -> DecoderConfig:
    return decoder_config(fields, qkv_bias=True)
