"""The backend that runs a model in this process."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from pie_backend.base import AdapterError, BackendError
from pie_backend.batch import AdapterInfo, BackendConfig, BackendInfo, Batch, BatchResult
from pie_backend.engine.adapters import Adapters
from pie_backend.engine.answer import answer
from pie_backend.engine.architectures import read_config
from pie_backend.engine.attention.base import Attention
from pie_backend.engine.checks import check_batch
from pie_backend.engine.config import DecoderConfig
from pie_backend.engine.kv_cache import KVCache, KVShape
from pie_backend.engine.memory import check_pages_fit, choose_num_pages, keep_freed_memory
from pie_backend.engine.ops.choose import choose_operators
from pie_backend.engine.ragged import flatten
from pie_backend.engine.transformer import Decoder, load_decoder
from pie_backend.engine.weights import Checkpoint
from pie_backend.fingerprint import fingerprint
from pie_backend.model_dir import ModelDir, resolve
from pie_backend.page_files import PageFileError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Engine:
    """Implements `Backend`. One thread at a time may call `execute`."""

    def __init__(
        self,
        info: BackendInfo,
        decoder: Decoder,
        cache: KVCache,
        attention: Attention,
        adapters: Adapters,
    ) -> None:
        self._info = info
        self._decoder: Decoder | None = decoder
        self._cache: KVCache | None = cache
        self._attention: Attention | None = attention
        self._adapters: Adapters | None = adapters

    @property
    def info(self) -> BackendInfo:
        return self._info

    def execute(self, batch: Batch) -> BatchResult:
        if self._decoder is None or self._cache is None or self._attention is None:
            raise self._closed()
        check_batch(batch, self._info)
        try:
            with torch.inference_mode():
                return self._execute(batch, self._decoder, self._cache, self._attention)
        except (RuntimeError, MemoryError) as error:
            raise BackendError(f"step {batch.step} failed: {error}") from error

    def _execute(
        self, batch: Batch, decoder: Decoder, cache: KVCache, attention: Attention
    ) -> BatchResult:
        cache.evict_pages(batch.evict)
        cache.restore_pages(batch.restore)
        if batch.store or batch.load:
            return BatchResult(batch.step, [], file_failure=_move_files(batch, cache))
        cache.copy_pages(batch.copies)
        if not batch.rows:
            return BatchResult(batch.step, [])
        flat = flatten(batch.rows, self._info.page_size)
        if flat.entered_pages:
            cache.clear_pages(flat.entered_pages)
        assert self._adapters is not None  # closed together with the decoder
        used = self._adapters.decoder_for(flat)
        hidden = used.hidden_states(flat.tokens, flat.positions, attention.plan(flat))
        return answer(batch, decoder, hidden, flat)

    def load_adapter(self, path: str) -> AdapterInfo:
        if self._adapters is None:
            raise self._closed()
        try:
            with torch.inference_mode():
                return self._adapters.load(Path(path))
        except (RuntimeError, MemoryError) as error:
            raise AdapterError("internal", f"{path} cannot be loaded: {error}") from error

    def unload_adapter(self, digest: str) -> None:
        if self._adapters is not None:
            self._adapters.unload(digest)

    def close(self) -> None:
        self._decoder = self._cache = self._attention = self._adapters = None

    def _closed(self) -> BackendError:
        return BackendError(f"the backend of {self._info.name} is closed")


def _move_files(batch: Batch, cache: KVCache) -> str | None:
    """Why it could not be done."""
    try:
        if batch.store is not None:
            cache.store_pages(batch.store)
        if batch.load is not None:
            cache.load_pages(batch.load)
    except PageFileError as error:
        return str(error)
    return None


def build_engine(config: BackendConfig) -> Engine:
    """Raises BackendError when the model, the device or the dtype cannot be had."""
    model = resolve(config.path)
    _check_device(config.device)
    dtype = _dtype(config.dtype, model)
    _set_threads(config.num_threads)
    keep_freed_memory()
    decoder_config = read_config(model)
    try:
        with torch.inference_mode():
            ops = choose_operators(config.kernels, decoder_config, dtype, config.weights)
            decoder = load_decoder(decoder_config, Checkpoint(model.path, dtype), ops)
            cache = _make_cache(config, decoder_config, dtype)
    except (RuntimeError, MemoryError) as error:
        raise BackendError(f"{model.path} cannot be loaded: {error}") from error
    attention = ops.attention(cache, decoder_config.num_heads)
    adapters = Adapters(decoder, decoder_config, config.adapter_bytes)
    info = _describe(config, model, decoder_config, cache, ops.name)
    return Engine(info, decoder, cache, attention, adapters)


def _check_device(device: str) -> None:
    if device not in ("auto", "cpu"):
        raise BackendError(
            f"device {device!r} is not supported by this version; supported: cpu (auto picks it)"
        )


def _dtype(name: str, model: ModelDir) -> torch.dtype:
    """`auto` is the checkpoint's own; float16 becomes float32, which loses nothing."""
    if name == "auto":
        stored = model.config.get("dtype") or model.config.get("torch_dtype") or "float32"
        return torch.bfloat16 if stored == "bfloat16" else torch.float32
    if name not in _DTYPES:
        raise BackendError(
            f"dtype {name!r} is not supported; supported: auto, {', '.join(_DTYPES)}"
        )
    return _DTYPES[name]


def _set_threads(num_threads: int | None) -> None:
    """An explicit number wins, then OMP_NUM_THREADS (which torch has read), then every core."""
    if num_threads is None and "OMP_NUM_THREADS" in os.environ:
        return
    can_ask = hasattr(os, "sched_getaffinity")
    num_cores = len(os.sched_getaffinity(0)) if can_ask else os.cpu_count() or 1
    torch.set_num_threads(num_threads or num_cores)


def _make_cache(config: BackendConfig, decoder: DecoderConfig, dtype: torch.dtype) -> KVCache:
    shape = KVShape(
        decoder.num_layers, decoder.num_kv_heads, decoder.head_dim, config.page_size, dtype
    )
    num_pages = config.kv_pages
    if num_pages is None:
        num_pages = choose_num_pages(shape.page_bytes, shape.page_size, decoder.max_context)
    check_pages_fit(num_pages, config.host_pages, shape.page_bytes)
    return KVCache(shape, num_pages, config.host_pages)


def _describe(
    config: BackendConfig, model: ModelDir, decoder: DecoderConfig, cache: KVCache, kernels: str
) -> BackendInfo:
    return BackendInfo(
        name=config.name,
        architecture=model.architecture,
        vocab_size=decoder.vocab_size,
        max_context=decoder.max_context,
        page_size=config.page_size,
        num_pages=cache.num_pages,
        page_bytes=cache.shape.page_bytes,
        eos_tokens=model.eos_tokens,
        device="cpu",
        kernels=kernels,
        dtype=str(cache.shape.dtype).removeprefix("torch."),
        num_host_pages=cache.num_host_pages,
        revision=fingerprint(model.path),
        hidden_size=decoder.hidden_size,
    )
