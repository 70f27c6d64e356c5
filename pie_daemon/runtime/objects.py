"""Components on disk by content hash: the daemon's own copies, which nobody changes underneath."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from pie_daemon.errors import PieError
from pie_daemon.runtime.folders import sync_folder

_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredObject:
    digest: str
    """sha256, hexadecimal."""
    path: Path
    size_bytes: int


class ObjectStore:
    """One file for each content, complete and durable once its name exists."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._root = root
        self._max_bytes = max_bytes

    def add(self, source: Path) -> StoredObject:
        """Copies, hashing on the way; PieError when the file is larger than is accepted."""
        handle, temporary = tempfile.mkstemp(dir=self._root, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as target:
                digest, size_bytes = self._fill(target.write, source)
                target.flush()
                os.fsync(target.fileno())
            stored = self._path(digest)
            os.replace(temporary, stored)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_folder(self._root)
        return StoredObject(digest, stored, size_bytes)

    def _fill(self, write: Callable[[bytes], int], source: Path) -> tuple[str, int]:
        sha = hashlib.sha256()
        size_bytes = 0
        for block in _blocks(source):
            size_bytes += len(block)
            if size_bytes > self._max_bytes:
                raise PieError(
                    "invalid-argument",
                    f"{source.name} is larger than limits.upload_bytes={self._max_bytes}",
                )
            sha.update(block)
            write(block)
        return sha.hexdigest(), size_bytes

    def get(self, digest: str) -> StoredObject:
        """Raises: FileNotFoundError."""
        path = self._path(digest)
        return StoredObject(digest, path, path.stat().st_size)

    def discard(self, digest: str) -> None:
        self._path(digest).unlink(missing_ok=True)

    def keep_only(self, digests: Collection[str]) -> None:
        """Removes everything else, half-written copies included."""
        for path in self._root.iterdir():
            if path.suffix != ".wasm" or path.stem not in digests:
                path.unlink()

    def _path(self, digest: str) -> Path:
        return self._root / f"{digest}.wasm"


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as source:
        while block := source.read(_COPY_BYTES):
            yield block
