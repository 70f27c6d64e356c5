"""Adapters of the dummy backend: real files, checked like any, that only lead to other tokens."""

from __future__ import annotations

from pathlib import Path

from pie_backend.adapter_dir import read_adapter
from pie_backend.base import AdapterError, BackendError
from pie_backend.batch import AdapterInfo


class DummyAdapters:
    """Takes the sizes of the files for the memory that a model would need."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._loaded: dict[str, AdapterInfo] = {}

    def load(self, path: Path) -> AdapterInfo:
        """Raises: AdapterError."""
        files = read_adapter(path, self._max_bytes)
        if files.digest not in self._loaded:
            used = sum(info.num_bytes for info in self._loaded.values())
            if used + len(files.weights) > self._max_bytes:
                raise AdapterError(
                    "quota",
                    f"{path} takes {len(files.weights)} bytes beside {used} of other adapters; "
                    f"backend.adapter_mb allows {self._max_bytes}",
                    no_room=True,
                )
            self._loaded[files.digest] = AdapterInfo(files.digest, len(files.weights))
        return self._loaded[files.digest]

    def unload(self, digest: str) -> None:
        self._loaded.pop(digest, None)

    def check(self, digest: str | None) -> None:
        if digest is not None and digest not in self._loaded:
            raise BackendError(f"a row wants adapter {digest}, which is not loaded")
