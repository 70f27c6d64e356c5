"""Pairs in SQLite: durable, shared commits, bounded."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pie_daemon.errors import PieError
from pie_daemon.runtime.config import LimitsConfig
from pie_daemon.runtime.storage import Owner, Storage, Write
from support.waiting import until

ANN = Owner("ann", "system/notes")
LIMITS = LimitsConfig(
    storage_key_bytes=10, storage_value_bytes=100, storage_user_bytes=400, storage_list_keys=5
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "storage.sqlite3"


@pytest.fixture
def storage(path: Path) -> Iterator[Storage]:
    storage = Storage(path, lambda: LIMITS)
    yield storage
    storage.close()


def write(storage: Storage, owner: Owner, key: str, value: bytes | None) -> None:
    pending = storage.write(owner, key, value, lambda: None)
    until(lambda: pending.done)
    if pending.error is not None:
        raise pending.error


def refusal(function: Callable[..., object], *arguments: object) -> tuple[str, str]:
    with pytest.raises(PieError) as refused:
        function(*arguments)
    return refused.value.code, refused.value.message


def test_pairs_are_kept_replaced_and_deleted(storage: Storage) -> None:
    """Deleting what is not there is fine; bytes come back as they were, NUL and all."""
    write(storage, ANN, "a\0b", b"\0\xff")
    write(storage, ANN, "a", b"old")
    write(storage, ANN, "a", b"new")
    write(storage, ANN, "gone", b"x")
    write(storage, ANN, "gone", None)
    write(storage, ANN, "never", None)

    assert [b"\0\xff", b"new", None] == [storage.get(ANN, key) for key in ("a\0b", "a", "gone")]


def test_users_and_programs_do_not_see_each_other(storage: Storage) -> None:
    """Neither does an upload see what a system program of its name has kept."""
    others = [Owner("bob", "system/notes"), Owner("ann", "ann/notes"), Owner("ann", "system/x")]
    write(storage, ANN, "key", b"ann's")

    assert [None] * 3 == [storage.get(other, "key") for other in others]
    assert [[]] * 3 == [storage.keys(other, "") for other in others]


def test_keys_are_listed_by_prefix_in_order(storage: Storage) -> None:
    """Wildcards of SQL mean nothing; characters behind all others are found as well."""
    for key in ("b", "a/2", "a/\U0010ffff", "a/1", "%"):
        write(storage, ANN, key, b"")

    assert ["%", "a/1", "a/2", "a/\U0010ffff", "b"] == storage.keys(ANN, "")
    assert ["a/1", "a/2", "a/\U0010ffff"] == storage.keys(ANN, "a/")
    assert ["a/\U0010ffff"] == storage.keys(ANN, "a/\U0010ffff")
    assert ["%"] == storage.keys(ANN, "%")
    write(storage, ANN, "c", b"")
    assert "limits.storage_list_keys=5" in refusal(storage.keys, ANN, "")[1]


def test_every_bound_names_its_limit_and_changes_nothing(storage: Storage) -> None:
    """Deleting and shrinking work at the limit, and give room again."""
    refused = [
        refusal(write, storage, ANN, "k" * 11, b""),
        refusal(write, storage, ANN, "k", b"v" * 101),
    ]
    for number in range(2):
        write(storage, ANN, f"{number}", b"v" * 100)
    refused.append(refusal(write, storage, ANN, "2", b"v" * 100))

    assert ["quota"] * 3 == [code for code, _ in refused]
    names = ("storage_key_bytes=10", "storage_value_bytes=100", "storage_user_bytes=400")
    assert all(f"limits.{n}" in text for n, (_, text) in zip(names, refused, strict=True)), refused
    assert ["0", "1"] == storage.keys(ANN, "")
    write(storage, Owner("bob", "system/notes"), "2", b"v" * 100)
    write(storage, ANN, "0", b"v")
    write(storage, ANN, "1", None)
    write(storage, ANN, "2", b"v" * 100)


def test_writers_share_commits(storage: Storage, path: Path) -> None:
    """Sixty-four that come in while the disk is busy are one transaction, after the first."""
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    owners = [Owner(f"user {number}", "p") for number in range(64)]
    writes = [storage.write(owner, "key", b"value", lambda: None) for owner in owners]
    assert not any(one.done for one in writes)
    blocker.execute("COMMIT")
    blocker.close()
    until(lambda: all(one.done for one in writes))

    assert [None] * 64 == [one.error for one in writes]
    assert storage.num_commits <= 2
    assert [b"value"] * 64 == [storage.get(owner, "key") for owner in owners]


def test_one_refused_write_does_not_fail_its_neighbours(storage: Storage, path: Path) -> None:
    """They share its commit and are kept."""
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    values = [b"", *[b"v" * 100] * 4, b"", None]
    writes = [storage.write(ANN, f"{n}", v, lambda: None) for n, v in enumerate(values)]
    blocker.execute("COMMIT")
    blocker.close()
    until(lambda: all(one.done for one in writes))

    codes = [one.error.code if one.error else None for one in writes]
    assert [None, None, None, "quota", "quota", "quota", None] == codes
    assert ["0", "1", "2"] == storage.keys(ANN, "")


def test_a_failing_disk_is_told_and_what_comes_later_works(
    storage: Storage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the failed commit is kept, and nobody waits for ever."""

    def fail(write: Write) -> None:
        raise sqlite3.OperationalError("planted")

    with monkeypatch.context() as broken:
        broken.setattr(storage, "_apply", fail)
        code, message = refusal(write, storage, ANN, "a", b"")
    write(storage, ANN, "b", b"")

    assert ("internal", True) == (code, "planted" in message)
    assert ["b"] == storage.keys(ANN, "")


_WRITER = """
import sys
from pathlib import Path
from pie_daemon.runtime.config import LimitsConfig
from pie_daemon.runtime.storage import Owner, Storage
storage = Storage(Path(sys.argv[1]), LimitsConfig)
number = 0
while True:
    number += 1
    write = storage.write(Owner("ann", "system/notes"), f"{number:06}", b"x" * 100, lambda: None)
    while not write.done:
        pass
    print(number, flush=True)
"""


def test_what_was_acknowledged_survives_a_kill(path: Path) -> None:
    """Every write that returned before kill -9 is there, and at most the next one beside them."""
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, path], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    for _ in range(50):
        writer.stdout.readline()
    os.kill(writer.pid, signal.SIGKILL)
    told = 50 + len(writer.stdout.read().split())
    writer.stdout.close()
    writer.wait()
    storage = Storage(path, LimitsConfig)
    kept = storage.keys(ANN, "")

    assert [f"{number:06}" for number in range(1, told + 1)] == kept[:told]
    assert len(kept) <= told + 1
    write(storage, ANN, "more", b"")
    storage.close()


def test_the_file_is_the_users_own_and_a_newer_one_is_refused(path: Path) -> None:
    """What programs keep is nobody else's, and an older daemon does not guess."""
    Storage(path, LimitsConfig).close()
    assert 0o600 == path.stat().st_mode & 0o777
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()

    assert "unsupported" == refusal(Storage, path, LimitsConfig)[0]
