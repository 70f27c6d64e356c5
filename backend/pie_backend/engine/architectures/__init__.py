"""One small definition per supported architecture, all over the same decoder."""

from __future__ import annotations

from collections.abc import Callable

from pie_backend.base import BackendError
from pie_backend.engine.architectures import llama, qwen2, qwen3
from pie_backend.engine.config import DecoderConfig, Fields
from pie_backend.model_dir import ModelDir

ARCHITECTURES: dict[str, Callable[[Fields], DecoderConfig]] = {
    "LlamaForCausalLM": llama.read_config,
    "Qwen2ForCausalLM": qwen2.read_config,
    "Qwen3ForCausalLM": qwen3.read_config,
}


def read_config(model: ModelDir) -> DecoderConfig:
    """Raises BackendError for an architecture or a feature that is not supported."""
    read = ARCHITECTURES.get(model.architecture)
    if read is None:
        supported = ", ".join(ARCHITECTURES)
        raise BackendError(
            f"{model.path}: {model.architecture} is not supported; these are: {supported}"
        )
    return read(Fields(model.config, model.path / "config.json"))
