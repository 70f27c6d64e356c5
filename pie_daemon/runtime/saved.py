"""Saved contexts per user and name: journals in memory, and durable ones in files of their own.

A saved context holds no pages. Its pages are found again by their content, as long as nothing else
needed their place; those of durable ones may be in a file, too; the others are computed again. So
however many contexts are saved, no program waits for memory because of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from pie_backend.batch import BackendInfo
from pie_backend.page_files import CHECKSUM_BYTES
from pie_daemon.errors import PieError
from pie_daemon.runtime.config import LimitsConfig
from pie_daemon.runtime.saved_files import DamagedRecord, SavedFiles
from pie_daemon.runtime.saved_record import PageForm, SavedContext
from pie_daemon.scheduler.journal import Journal

MAX_NAME_BYTES = 200
_log = structlog.get_logger()


@dataclass(slots=True)
class _Entry:
    num_tokens: int
    record: SavedContext | None
    """None: it is in a file."""


@dataclass(slots=True)
class _Shelf:
    """What one user has saved. A lock of its own: a slow disk holds up nobody else."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    entries: dict[str, _Entry] | None = None
    """None until the user's files have been looked at."""


class SavedContexts:
    """Thread-safe. Only one daemon may use the folder at a time."""

    def __init__(self, folder: Path, limits: Callable[[], LimitsConfig]) -> None:
        """
        Raises:
            PieError: the folder cannot be used.
        """
        self._files = SavedFiles(folder)
        self._limits = limits
        self._lock = threading.Lock()
        self._shelves: dict[str, _Shelf] = {}

    def save(
        self,
        user: str,
        name: str,
        record: SavedContext,
        durable: bool,
        form: PageForm | None = None,
    ) -> Path | None:
        """In place of what was saved under that name. A durable one is on the disk on return; if
        there is room for its pages, the answer is where to.

        Raises:
            PieError: invalid-argument for a name that cannot be, quota when the user keeps too
                much; nothing has changed then.
        """
        _check_name(name)
        shelf = self._shelf(user)
        with shelf.lock:
            entries = self._entries(shelf, user)
            self._check_quota(entries, user, name, record.journal.weight)
            if durable:
                self._files.write(user, name, record)
            elif name in entries and entries[name].record is None:
                self._files.delete(user, name)
            entries[name] = _Entry(record.journal.weight, None if durable else record)
            return self._room_for_pages(record, form) if durable and form else None

    def pages_of(self, record: SavedContext, form: PageForm) -> Path | None:
        """Where its pages are, if they are kept."""
        path = self._files.pages_of(record, form)
        return path if path.is_file() else None

    def _room_for_pages(self, record: SavedContext, form: PageForm) -> Path | None:
        num_pages = record.journal.num_tokens // form.page_size
        wanted = num_pages * (form.page_bytes + CHECKSUM_BYTES)
        kept = self._files.page_bytes(record.user, but=record.name)
        if not num_pages or kept + wanted > self._limits().saved_page_bytes:
            return None
        return self._files.pages_of(record, form)

    def get(self, user: str, name: str) -> SavedContext:
        """
        Raises:
            PieError: not-found without one of that name; internal when its file was damaged.
        """
        shelf = self._shelf(user)
        with shelf.lock:
            entry = self._find(shelf, user, name)
            if entry.record is not None:
                return entry.record
            try:
                return self._files.read(user, name)
            except DamagedRecord as error:
                raise PieError(
                    "internal", f"the context saved as {name!r} cannot be read: {error}"
                ) from None

    def names(self, user: str) -> list[str]:
        """In the order of their characters."""
        shelf = self._shelf(user)
        with shelf.lock:
            return sorted(self._entries(shelf, user))

    def delete(self, user: str, name: str) -> None:
        """A durable one is gone from the disk on return. Raises: PieError: not-found."""
        shelf = self._shelf(user)
        with shelf.lock:
            if self._find(shelf, user, name).record is None:
                self._files.delete(user, name)
            del self._entries(shelf, user)[name]

    def _shelf(self, user: str) -> _Shelf:
        with self._lock:
            return self._shelves.setdefault(user, _Shelf())

    def _entries(self, shelf: _Shelf, user: str) -> dict[str, _Entry]:
        if shelf.entries is None:
            shelf.entries = {}
            for path, record in self._files.of_user(user):
                if isinstance(record, DamagedRecord):
                    _log.error("saved_context_damaged", path=str(path), reason=str(record))
                else:
                    shelf.entries[record.name] = _Entry(record.journal.weight, None)
        return shelf.entries

    def _find(self, shelf: _Shelf, user: str, name: str) -> _Entry:
        entries = self._entries(shelf, user)
        if name not in entries:
            known = ", ".join(sorted(entries)[:10]) or "none"
            raise PieError("not-found", f"no context is saved as {name!r}; there are: {known}")
        return entries[name]

    def _check_quota(
        self, entries: dict[str, _Entry], user: str, name: str, num_tokens: int
    ) -> None:
        limits = self._limits()
        others = [entry for other, entry in entries.items() if other != name]
        if len(others) >= limits.saved_contexts:
            raise PieError(
                "quota",
                f"{user} has saved {len(others)} contexts; "
                f"limits.saved_contexts={limits.saved_contexts}: delete some",
            )
        saved = sum(entry.num_tokens for entry in others)
        if saved + num_tokens > limits.saved_tokens:
            raise PieError(
                "quota",
                f"{user} has saved {saved} tokens and this has {num_tokens}; "
                f"limits.saved_tokens={limits.saved_tokens}: delete some",
            )


def _check_name(name: str) -> None:
    if not 0 < len(name.encode()) <= MAX_NAME_BYTES or not name.isprintable():
        raise PieError(
            "invalid-argument",
            f"a context is saved under 1 to {MAX_NAME_BYTES} bytes of printable text, "
            f"not {name[:MAX_NAME_BYTES]!r}",
        )


class UserContexts:
    """The saved contexts of one user: what an instance gets."""

    def __init__(self, saved: SavedContexts, user: str) -> None:
        self._saved = saved
        self._user = user

    def save(self, name: str, info: BackendInfo, journal: Journal, durable: bool) -> Path | None:
        record = SavedContext(self._user, name, info.name, info.revision, journal)
        return self._saved.save(self._user, name, record, durable, PageForm.of(info))

    def pages_of(self, record: SavedContext, info: BackendInfo) -> Path | None:
        return self._saved.pages_of(record, PageForm.of(info))

    def get(self, name: str) -> SavedContext:
        return self._saved.get(self._user, name)

    def names(self) -> list[str]:
        return self._saved.names(self._user)

    def delete(self, name: str) -> None:
        self._saved.delete(self._user, name)
