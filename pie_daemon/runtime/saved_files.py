"""Saved contexts on disk: a file each, replaced in one step, with a checksum over all of it.

User and name are in the file; its own name is made of their hashes, so that any name is fine.
Beside it may be its KV pages, under a name that also tells of which content and form they are.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import msgspec

from pie_daemon.errors import PieError
from pie_daemon.runtime.folders import sync_folder
from pie_daemon.runtime.saved_record import PageForm, SavedContext

_MAGIC = b"pie-context-1\n"
_CHECKSUM_BYTES = 16
_SUFFIX = ".context"
_PAGES = ".pages"
_PARTIAL = ".partial"
_MISPLACED = "it is not under its own name"


class DamagedRecord(Exception):
    """The file is not what was written; the message says how."""


class SavedFiles:
    """One write at a time per user; who calls sees to that."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for left_over in folder.glob(f"*/*{_PARTIAL}"):
                left_over.unlink()
        except OSError as error:
            raise PieError("internal", f"cannot use {folder} for saved contexts: {error}") from None

    def write(self, user: str, name: str, record: SavedContext) -> None:
        """Durable on return.

        Raises:
            PieError: exhausted when the disk is full, internal when it cannot be written.
        """
        path = self._path(user, name)
        partial = path.with_suffix(_PARTIAL)
        data = msgspec.msgpack.encode(record)
        try:
            if not path.parent.exists():
                path.parent.mkdir(mode=0o700)
                sync_folder(self._folder)
            with partial.open("wb") as file:
                file.write(_MAGIC + data + _checksum(data))
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            self._drop_pages(path)
            sync_folder(path.parent)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise _failed(path, error) from None

    def pages_of(self, record: SavedContext, form: PageForm) -> Path:
        """Where the pages of exactly this record are, or may be written to."""
        path = self._path(record.user, record.name)
        identity = msgspec.msgpack.encode((record, form))
        return path.with_name(f"{path.stem}-{_hashed(identity)}{_PAGES}")

    def page_bytes(self, user: str, but: str) -> int:
        """Of all pages that are kept for the user under other names."""
        own = self._path(user, but).stem
        files = self._user_folder(user).glob(f"*{_PAGES}")
        return sum(path.stat().st_size for path in files if not path.name.startswith(own))

    def delete(self, user: str, name: str) -> None:
        """Gone from the disk on return; fine if there is none."""
        path = self._path(user, name)
        try:
            path.unlink(missing_ok=True)
            self._drop_pages(path)
            if path.parent.exists():
                sync_folder(path.parent)
        except OSError as error:
            raise _failed(path, error) from None

    def read(self, user: str, name: str) -> SavedContext:
        """Raises: DamagedRecord: also when it has vanished."""
        record = _read(self._path(user, name))
        if (record.user, record.name) != (user, name):
            raise DamagedRecord(_MISPLACED)
        return record

    def of_user(self, user: str) -> Iterator[tuple[Path, SavedContext | DamagedRecord]]:
        for path in sorted(self._user_folder(user).glob(f"*{_SUFFIX}")):
            try:
                record = _read(path)
                if self._path(record.user, record.name) != path:
                    raise DamagedRecord(_MISPLACED)
                yield path, record
            except DamagedRecord as error:
                yield path, error

    def _drop_pages(self, path: Path) -> None:
        for pages in path.parent.glob(f"{path.stem}-*{_PAGES}"):
            pages.unlink(missing_ok=True)

    def _user_folder(self, user: str) -> Path:
        return self._folder / _hashed(user)

    def _path(self, user: str, name: str) -> Path:
        return self._user_folder(user) / f"{_hashed(name)}{_SUFFIX}"


def _read(path: Path) -> SavedContext:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedRecord(f"it cannot be read: {error.strerror}") from None
    data = content[len(_MAGIC) : -_CHECKSUM_BYTES]
    if not content.startswith(_MAGIC):
        raise DamagedRecord("it is not a saved context of this version")
    if content[-_CHECKSUM_BYTES:] != _checksum(data):
        raise DamagedRecord("its checksum does not fit")
    try:
        return msgspec.msgpack.decode(data, type=SavedContext)
    except msgspec.DecodeError as error:
        raise DamagedRecord(str(error)) from None


def _checksum(data: bytes) -> bytes:
    return blake2b(data, digest_size=_CHECKSUM_BYTES).digest()


def _hashed(content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    return blake2b(data, digest_size=16).hexdigest()


def _failed(path: Path, error: OSError) -> PieError:
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return PieError("exhausted" if is_full else "internal", f"cannot write {path}: {error}")
