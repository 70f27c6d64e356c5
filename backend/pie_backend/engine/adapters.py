"""The adapters that an engine holds, within their share of memory."""

from __future__ import annotations

from pathlib import Path

from pie_backend.adapter_dir import read_adapter
from pie_backend.base import AdapterError, BackendError
from pie_backend.batch import AdapterInfo
from pie_backend.engine.config import DecoderConfig
from pie_backend.engine.devices.base import Memory
from pie_backend.engine.lora import Adapter, AdapterStep, adapted, tokens_by_adapter
from pie_backend.engine.lora_weights import AdapterLoader
from pie_backend.engine.parallel.team import ALONE, Team
from pie_backend.engine.ragged import RaggedBatch
from pie_backend.engine.transformer import Decoder

# In memory an adapter is at least as large as on the disk, the file's header aside.
_HEADER_BYTES = 1 << 20


class Adapters:
    """Loads, keeps and applies adapters; what to keep is its caller's decision."""

    def __init__(
        self,
        decoder: Decoder,
        config: DecoderConfig,
        memory: Memory,
        max_bytes: int,
        team: Team = ALONE,
    ) -> None:
        self._bare = decoder
        self._step = AdapterStep()
        self._adapted = adapted(decoder, self._step)
        self._config = config
        self._memory = memory
        self._max_bytes = max_bytes
        self._team = team
        self._loaded: dict[str, Adapter] = {}

    def load(self, path: Path) -> AdapterInfo:
        """Raises: AdapterError."""
        files = read_adapter(path, self._max_bytes + _HEADER_BYTES)
        adapter = self._loaded.get(files.digest)
        if adapter is None:
            loader = AdapterLoader(files, self._config, self._memory.place, self._team)
            self._check_room(path, loader.num_bytes)
            adapter = self._loaded[files.digest] = loader.load()
        return AdapterInfo(adapter.digest, adapter.num_bytes)

    def unload(self, digest: str) -> None:
        self._step.tokens = []  # of the last batch, which keep their adapters alive
        self._loaded.pop(digest, None)

    def decoder_for(self, flat: RaggedBatch) -> Decoder:
        """The model itself, where no row asks for an adapter.

        Raises: BackendError: a row names one that is not loaded.
        """
        if not any(span.row.adapter for span in flat.spans):
            return self._bare
        try:
            self._step.tokens = tokens_by_adapter(flat, self._loaded)
        except KeyError as error:
            raise BackendError(f"a row wants adapter {error}, which is not loaded") from error
        return self._adapted

    def _check_room(self, path: Path, num_bytes: int) -> None:
        used = sum(adapter.num_bytes for adapter in self._loaded.values())
        if num_bytes > self._max_bytes:
            raise AdapterError(
                "exhausted",
                f"{path} takes {num_bytes} bytes; backend.adapter_mb allows {self._max_bytes}",
            )
        if used + num_bytes > self._max_bytes:
            raise AdapterError(
                "quota",
                f"{path} takes {num_bytes} bytes beside {used} of other adapters; "
                f"backend.adapter_mb allows {self._max_bytes}",
                no_room=True,
            )
        free_bytes = self._memory.free_bytes()
        if num_bytes > free_bytes:
            raise AdapterError(
                "exhausted", f"{path} takes {num_bytes} bytes; the device has {free_bytes} left"
            )
