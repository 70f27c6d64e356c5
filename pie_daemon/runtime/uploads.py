"""Which programs users have uploaded: on disk, so that a restart of the daemon keeps them."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import msgspec
import structlog

_log = structlog.get_logger()


class Upload(msgspec.Struct, frozen=True):
    namespace: str
    name: str
    digest: str


class UploadIndex:
    """One small JSON file, replaced atomically and durable when a method returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._uploads = {(one.namespace, one.name): one for one in _read(path)}

    def all(self) -> list[Upload]:
        return list(self._uploads.values())

    def add(self, upload: Upload) -> None:
        """Puts it in the place of an earlier one of the same name."""
        with self._lock:
            self._uploads[upload.namespace, upload.name] = upload
            self._write()

    def _write(self) -> None:
        partial = self._path.with_suffix(".part")
        with partial.open("wb") as file:
            file.write(msgspec.json.encode(self.all()))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self._path)


def _read(path: Path) -> list[Upload]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Upload])
    except FileNotFoundError:
        return []
    except msgspec.MsgspecError as error:
        # Kept for a person to look at; the uploads themselves still lie in the store.
        os.replace(path, path.with_suffix(".broken"))
        _log.error("upload_index_unreadable", path=str(path), reason=str(error))
        return []
