"""The backend that runs a model in this process."""

from __future__ import annotations

from pathlib import Path

import torch
from msgspec.structs import replace

from pie_backend.base import AdapterError, BackendError, SinglePasses
from pie_backend.batch import AdapterInfo, BackendConfig, BackendInfo, Batch, BatchResult
from pie_backend.engine.adapters import Adapters
from pie_backend.engine.answer import States, answer, asked_places
from pie_backend.engine.architectures import read_config
from pie_backend.engine.attention.base import Attention, AttentionStep
from pie_backend.engine.checks import check_batch
from pie_backend.engine.config import DecoderConfig
from pie_backend.engine.course import Course, Planned
from pie_backend.engine.devices.base import Device
from pie_backend.engine.devices.choose import choose_device
from pie_backend.engine.kv_cache import KVCache, KVShape
from pie_backend.engine.loading import load_decoder
from pie_backend.engine.memory import choose_num_pages
from pie_backend.engine.page_transfer import load_pages, store_pages
from pie_backend.engine.parallel.division import own_part
from pie_backend.engine.parallel.team import ALONE, Team
from pie_backend.engine.ragged import RaggedBatch, flatten
from pie_backend.engine.transformer import Decoder
from pie_backend.engine.warm_up import first_batch
from pie_backend.engine.weights import Checkpoint
from pie_backend.fingerprint import fingerprint
from pie_backend.model_dir import ModelDir, resolve
from pie_backend.page_files import PageFileError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Engine(SinglePasses):
    """Implements `Backend`. One thread at a time may call `execute`."""

    def __init__(
        self,
        info: BackendInfo,
        device: Device,
        decoder: Decoder,
        cache: KVCache,
        attention: Attention,
        adapters: Adapters,
    ) -> None:
        self._info = info
        self._device = device
        self._decoder: Decoder | None = decoder
        self._cache: KVCache | None = cache
        self._attention: Attention | None = attention
        self._adapters: Adapters | None = adapters
        self._planned: Planned | None = None
        """The batch executed last, if its rows are one token each."""
        self._course: Course | None = None

    @property
    def info(self) -> BackendInfo:
        return self._info

    def execute(self, batch: Batch) -> BatchResult:
        if self._decoder is None or self._cache is None or self._attention is None:
            raise self._closed()
        check_batch(batch, self._info)
        try:
            with torch.inference_mode():
                result = self._execute(batch, self._decoder, self._cache, self._attention)
            self._device.finish()
            return result
        except (RuntimeError, MemoryError) as error:
            raise BackendError(f"step {batch.step} failed: {error}") from error

    def follow(self, batch: Batch, number: int, drawn: list[list[int]]) -> BatchResult:
        if number == 1:
            self._course = Course.begin(self._planned, batch, self._info)
        if self._course is None or not self._course.leads_to(number):
            return super().follow(batch, number, drawn)
        try:
            return self._course.compute(drawn, self._device.draws_on)
        except (RuntimeError, MemoryError) as error:
            raise BackendError(f"step {batch.step} failed: {error}") from error

    def _execute(
        self, batch: Batch, decoder: Decoder, cache: KVCache, attention: Attention
    ) -> BatchResult:
        self._planned = self._course = None
        cache.evict_pages(batch.evict)
        cache.restore_pages(batch.restore)
        if batch.store or batch.load:
            return BatchResult(batch.step, [], file_failure=_move_files(batch, cache))
        cache.copy_pages(batch.copies)
        if not batch.rows:
            return BatchResult(batch.step, [])
        flat = flatten(batch.rows, self._info.page_size, cache.place)
        if flat.entered_pages:
            cache.clear_pages(flat.entered_pages)
        assert self._adapters is not None  # closed together with the decoder
        used = self._adapters.decoder_for(flat)
        step = attention.plan(flat)
        if flat.num_single == len(flat.tokens):
            self._planned = Planned(batch, flat, used, step)
            if (result := self._planned.likeliest()) is not None:
                return result
        states = _states(used, flat, step, all_tokens=used is not decoder)
        return answer(batch, decoder, states, flat, self._device.draws_on)

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
        self._planned = self._course = None

    def _closed(self) -> BackendError:
        return BackendError(f"the backend of {self._info.name} is closed")


def _states(
    decoder: Decoder, flat: RaggedBatch, step: AttentionStep, *, all_tokens: bool
) -> States:
    """`all_tokens`: adapters know their tokens by their places among all."""
    num_tokens = len(flat.tokens)
    if all_tokens or num_tokens == flat.num_single:
        hidden = decoder.hidden_states(flat.tokens, flat.positions, step)
        return States(hidden, list(range(num_tokens)))
    places = asked_places(flat) or [0]
    kept = torch.tensor(places, device=flat.tokens.device)
    return States(decoder.hidden_states(flat.tokens, flat.positions, step, kept), places)


def _move_files(batch: Batch, cache: KVCache) -> str | None:
    """Why it could not be done."""
    try:
        if batch.store is not None:
            store_pages(batch.store, cache)
        if batch.load is not None:
            load_pages(batch.load, cache)
    except PageFileError as error:
        return str(error)
    return None


def build_engine(config: BackendConfig, team: Team = ALONE) -> Engine:
    """One rank of a team, or all there is. All ranks build at the same time.

    Raises:
        BackendError: the model, the device or the dtype cannot be had, or another rank is lost.
    """
    model = resolve(config.path)
    chosen = choose_device(config)
    return build_on(chosen.device, config, model, chosen.why, team)


def build_on(
    device: Device, config: BackendConfig, model: ModelDir, why: str = "", team: Team = ALONE
) -> Engine:
    """On a device of the caller's; raises BackendError as above."""
    weights = Checkpoint(model.path, _dtype(config.dtype, model), device.place)
    return assemble(device, config, model, weights, why, team)


def assemble(
    device: Device,
    config: BackendConfig,
    model: ModelDir,
    weights: Checkpoint,
    why: str = "",
    team: Team = ALONE,
) -> Engine:
    """Of weights that may come from elsewhere; raises BackendError as above."""
    dtype = weights.dtype
    device.prepare(config.num_threads)
    whole = read_config(model)
    part = own_part(whole, team.size)
    try:
        with torch.inference_mode():
            device.check(part, config, weights)
            ops = device.operators(part, dtype, config)
            decoder = load_decoder(whole, weights, ops, team)
            cache = _make_cache(device, config, part, dtype, team)
    except (RuntimeError, MemoryError) as error:
        raise BackendError(f"{model.path} cannot be loaded: {error}") from error
    attention = ops.attention(cache, part.num_heads)
    adapters = Adapters(decoder, whole, device, config.adapter_bytes, team)
    info = _describe(config, model, whole, cache)
    info = replace(info, device=device.name, device_reason=why, kernels=ops.name)
    engine = Engine(info, device, decoder, cache, attention, adapters)
    if device.compiles_late:
        engine.execute(first_batch(info))
    return engine


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


def _make_cache(
    device: Device, config: BackendConfig, part: DecoderConfig, dtype: torch.dtype, team: Team
) -> KVCache:
    shape = KVShape(part.num_layers, part.num_kv_heads, part.head_dim, config.page_size, dtype)
    team.least(0)  # what is free once all ranks have their weights is for pages
    num_pages = config.kv_pages
    if num_pages is None:
        room = device.room_for_pages()
        num_pages = choose_num_pages(room, shape.page_bytes, shape.page_size, part.max_context)
    device.check_pages(num_pages, config.host_pages, shape.page_bytes)
    return KVCache(shape, device, team.least(num_pages), config.host_pages, team)


def _describe(
    config: BackendConfig, model: ModelDir, decoder: DecoderConfig, cache: KVCache
) -> BackendInfo:
    return BackendInfo(
        name=config.name,
        architecture=model.architecture,
        vocab_size=decoder.vocab_size,
        max_context=decoder.max_context,
        page_size=config.page_size,
        num_pages=cache.num_pages,
        page_bytes=cache.shape.page_bytes * config.tensor_parallel,
        eos_tokens=model.eos_tokens,
        device="",
        dtype=str(cache.shape.dtype).removeprefix("torch."),
        num_host_pages=cache.num_host_pages,
        revision=fingerprint(model.path),
        hidden_size=decoder.hidden_size,
        tensor_parallel=config.tensor_parallel,
    )
