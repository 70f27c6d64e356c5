"""Durable key-value pairs per user and program, in one SQLite file.

Reads go straight to the file. Writes go through one thread, which commits everything that came in
while it was busy as one transaction: 64 writers share a commit, and nobody waits for a window.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

import structlog

from pie_daemon.errors import PieError
from pie_daemon.runtime.config import LimitsConfig

_PAIR_OVERHEAD_BYTES = 64
"""Charged beside key and value, so that a flood of empty pairs is bounded as well."""
_MAX_COMMIT = 1024
_FORMAT = 1
_SCHEMA = """
CREATE TABLE pairs (
    user TEXT NOT NULL, program TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,
    UNIQUE (user, program, key)
);
CREATE TABLE used (user TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
"""
_WHERE = "WHERE user = ? AND program = ?"
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Owner:
    user: str
    program: str
    """With its namespace: an upload never reads what a system program of its name has kept."""


class Write:
    """One change on its way to the disk."""

    def __init__(
        self, owner: Owner, key: bytes, value: bytes | None, notify: Callable[[], None]
    ) -> None:
        """`value` None deletes; `notify` is called from the writer's thread once it is done."""
        self.owner = owner
        self.key = key
        self.value = value
        self.done = False
        self.error: PieError | None = None
        self._notify = notify

    def finish(self, error: PieError | None = None) -> None:
        self.error = error
        self.done = True
        self._notify()


class Storage:
    """Thread-safe. Several daemons may have the same file open."""

    def __init__(self, path: Path, limits: Callable[[], LimitsConfig]) -> None:
        """
        Raises:
            PieError: the file cannot be opened, or a newer version wrote it.
        """
        self._path = path
        self._limits = limits
        self._queue: SimpleQueue[Write | None] = SimpleQueue()
        self._read_lock = threading.Lock()
        self.num_commits = 0
        try:
            path.touch(mode=0o600)
            self._connection = self._connect()
            self._prepare()
            self._reader = self._connect()
        except (sqlite3.Error, OSError) as error:
            raise PieError("internal", f"cannot open the storage {path}: {error}") from None
        self._thread = threading.Thread(target=self._main, name="storage", daemon=True)
        self._thread.start()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=30, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # a commit is on the disk, not only told
        return connection

    def _prepare(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        (found,) = self._connection.execute("PRAGMA user_version").fetchone()
        if found > _FORMAT:
            raise PieError("unsupported", f"a newer version of Pie wrote {self._path}")
        if found == 0:
            for statement in _SCHEMA.split(";"):
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {_FORMAT}")
        self._connection.execute("COMMIT")

    # Reading

    def get(self, owner: Owner, key: str) -> bytes | None:
        query = f"SELECT value FROM pairs {_WHERE} AND key = ?"
        found = self._read(query, (owner.user, owner.program, key.encode()))
        return found[0] if found else None

    def keys(self, owner: Owner, prefix: str) -> list[str]:
        """In the order of their characters.

        Raises:
            PieError: exhausted, when more begin so than one answer may hold.
        """
        start = prefix.encode()
        most = self._limits().storage_list_keys
        end = _after(start)
        bound, ends = ("", ()) if end is None else ("AND key < ?", (end,))
        found = self._read(
            f"SELECT key FROM pairs {_WHERE} AND key >= ? {bound} ORDER BY key LIMIT ?",
            (owner.user, owner.program, start, *ends, most + 1),
        )
        if len(found) > most:
            raise PieError(
                "exhausted",
                f"more than limits.storage_list_keys={most} keys begin with {prefix!r}; "
                "ask for a longer prefix",
            )
        return [key.decode() for key in found]

    def _read(self, query: str, arguments: tuple[object, ...]) -> list[bytes]:
        """The first column of every row."""
        with self._read_lock:
            try:
                return [row[0] for row in self._reader.execute(query, arguments)]
            except sqlite3.Error as error:
                raise PieError("internal", f"cannot read {self._path}: {error}") from None

    # Writing

    def write(
        self, owner: Owner, key: str, value: bytes | None, notify: Callable[[], None]
    ) -> Write:
        """Never blocks; the pair is durable once the answer is `done` without an error.

        Raises:
            PieError: quota, for a key or value that is too large by itself.
        """
        encoded = key.encode()
        limits = self._limits()
        _check_size("key", len(encoded), "storage_key_bytes", limits.storage_key_bytes)
        size_bytes = len(value or b"")
        _check_size("value", size_bytes, "storage_value_bytes", limits.storage_value_bytes)
        write = Write(owner, encoded, value, notify)
        self._queue.put(write)
        return write

    def close(self) -> None:
        """Everything that was handed in is on the disk when it returns."""
        self._queue.put(None)
        self._thread.join()
        with self._read_lock:
            self._reader.close()
        self._connection.close()

    def _main(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._commit(batch)

    def _next_batch(self) -> list[Write] | None:
        """Waits for one write and takes all that are there; None at the end."""
        first = self._queue.get()
        if first is None:
            return None
        batch = [first]
        try:
            while len(batch) < _MAX_COMMIT:
                more = self._queue.get_nowait()
                if more is None:
                    self._queue.put(None)
                    break
                batch.append(more)
        except Empty:
            pass
        return batch

    def _commit(self, batch: list[Write]) -> None:
        refused: dict[Write, PieError] = {}
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for write in batch:
                if (error := self._apply(write)) is not None:
                    refused[write] = error
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 -- the edge: whoever waits has to hear of it
            self._failed(batch, error)
            return
        self.num_commits += 1
        for write in batch:
            write.finish(refused.get(write))

    def _failed(self, batch: list[Write], error: Exception) -> None:
        """Nothing of the batch is kept. Each gets a second chance alone: it may be one's fault."""
        _log.error("storage_commit_failed", path=str(self._path), writes=len(batch), error=error)
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        if len(batch) > 1:
            for write in batch:
                self._commit([write])
            return
        code = getattr(error, "sqlite_errorcode", None)
        is_full = code is not None and code & 0xFF == sqlite3.SQLITE_FULL
        batch[0].finish(
            PieError("exhausted" if is_full else "internal", f"cannot write {self._path}: {error}")
        )

    def _apply(self, write: Write) -> PieError | None:
        """Within the transaction; refused, it changes nothing."""
        user, program = write.owner.user, write.owner.program
        execute = self._connection.execute
        old = execute(
            f"SELECT length(value) FROM pairs {_WHERE} AND key = ?", (user, program, write.key)
        ).fetchone()
        overhead_bytes = len(write.key) + _PAIR_OVERHEAD_BYTES
        growth = 0 if old is None else -(old[0] + overhead_bytes)
        if write.value is not None:
            growth += len(write.value) + overhead_bytes
        if (error := self._charge(user, growth)) is not None:
            return error
        if write.value is None:
            execute(f"DELETE FROM pairs {_WHERE} AND key = ?", (user, program, write.key))
        else:
            execute(
                "INSERT INTO pairs VALUES (?, ?, ?, ?) ON CONFLICT (user, program, key) "
                "DO UPDATE SET value = excluded.value",
                (user, program, write.key, write.value),
            )
        return None

    def _charge(self, user: str, growth: int) -> PieError | None:
        found = self._connection.execute("SELECT bytes FROM used WHERE user = ?", (user,))
        used = (found.fetchone() or (0,))[0]
        most = self._limits().storage_user_bytes
        if growth > 0 and used + growth > most:
            return PieError(
                "quota",
                f"{user} keeps {used} bytes and this would add {growth}; "
                f"limits.storage_user_bytes={most}",
            )
        self._connection.execute(
            "INSERT INTO used VALUES (?, ?) "
            "ON CONFLICT (user) DO UPDATE SET bytes = excluded.bytes",
            (user, used + growth),
        )
        return None


def _check_size(what: str, size_bytes: int, name: str, most: int) -> None:
    if size_bytes > most:
        raise PieError("quota", f"a {what} of {size_bytes} bytes is over limits.{name}={most}")


def _after(prefix: bytes) -> bytes | None:
    """The least bytes that are behind everything with this prefix; None: nothing is."""
    cut = prefix.rstrip(b"\xff")
    return cut[:-1] + bytes([cut[-1] + 1]) if cut else None


class ProgramStorage:
    """The pairs of one program for one user: what an instance gets."""

    def __init__(self, storage: Storage, owner: Owner) -> None:
        self._storage = storage
        self._owner = owner

    def get(self, key: str) -> bytes | None:
        return self._storage.get(self._owner, key)

    def keys(self, prefix: str) -> list[str]:
        return self._storage.keys(self._owner, prefix)

    def write(self, key: str, value: bytes | None, notify: Callable[[], None]) -> Write:
        return self._storage.write(self._owner, key, value, notify)
