"""Every way to put a file into the folder, on a real folder, by inotify and by polling."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pie_daemon.watcher.service import Watcher
from support.folder import FakeStore, eventually

pytestmark = pytest.mark.usefixtures("watcher")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "agent.wasm"
    path.write_bytes(b"good 1")
    return path


def serves(store: FakeStore, content: bytes, name: str = "agent") -> None:
    eventually(lambda: store.serving.get(name) == content)


def test_copied(folder: Path, store: FakeStore, source: Path) -> None:
    """`cp` deploys, and a second `cp` over it replaces."""
    shutil.copy(source, folder)
    serves(store, b"good 1")
    source.write_bytes(b"good 2")
    shutil.copy(source, folder)
    serves(store, b"good 2")

    assert {"agent"} == store.settling


def test_moved_in(folder: Path, store: FakeStore, source: Path) -> None:
    """`mv` of a finished file, which the kernel never reports as closed."""
    source.rename(folder / "agent.wasm")

    serves(store, b"good 1")


def test_moved_over(folder: Path, store: FakeStore, source: Path) -> None:
    """`mv` over the version that serves."""
    shutil.copy(source, folder)
    serves(store, b"good 1")
    source.write_bytes(b"good 2")
    source.replace(folder / "agent.wasm")

    serves(store, b"good 2")


def test_hard_linked(folder: Path, store: FakeStore, source: Path) -> None:
    """`ln`, as build tools do."""
    os.link(source, folder / "agent.wasm")

    serves(store, b"good 1")


def test_written_under_another_name_first(folder: Path, store: FakeStore) -> None:
    """A temporary file that is renamed when complete; the temporary name is never tried."""
    for content in (b"good 1", b"good 2"):
        (folder / ".agent.tmp").write_bytes(content)
        (folder / ".agent.tmp").replace(folder / "agent.wasm")
        serves(store, content)

    assert ["agent", "agent"] == store.installs


def test_truncated_then_completed(folder: Path, store: FakeStore) -> None:
    """A torn file is rejected with its reason while the old one serves; completed, it serves."""
    target = folder / "agent.wasm"
    target.write_bytes(b"good 1")
    serves(store, b"good 1")
    target.write_bytes(b"bad: torn")
    eventually(lambda: "agent" in store.reasons)

    assert b"good 1" == store.serving["agent"]
    assert "not a component" in store.reasons["agent"]

    target.write_bytes(b"good 2, whole")
    serves(store, b"good 2, whole")
    assert {} == store.reasons


def test_writer_that_closes_twice(folder: Path, store: FakeStore) -> None:
    """A pause shorter than the settling time between two halves is no version of its own."""
    with (folder / "agent.wasm").open("ab") as file:
        file.write(b"go")
    with (folder / "agent.wasm").open("ab") as file:
        file.write(b"od 1")

    serves(store, b"good 1")
    assert ["agent"] == store.installs


def test_emptied_file_keeps_the_old_version(folder: Path, store: FakeStore) -> None:
    """An empty file is shown as such and takes nothing away."""
    (folder / "agent.wasm").write_bytes(b"good 1")
    serves(store, b"good 1")
    (folder / "agent.wasm").write_bytes(b"")
    eventually(lambda: store.reasons.get("agent") == "agent.wasm is empty")

    assert b"good 1" == store.serving["agent"]


def test_huge_file_is_refused_unread(folder: Path, store: FakeStore) -> None:
    """A file over the limit is never opened."""
    (folder / "agent.wasm").write_bytes(b"good" * 300)
    eventually(lambda: "at most 1000" in store.reasons.get("agent", ""))

    assert [] == store.installs


def test_deleted(folder: Path, store: FakeStore, source: Path) -> None:
    """`rm` takes the program away; putting it back brings it back."""
    shutil.copy(source, folder)
    serves(store, b"good 1")
    (folder / "agent.wasm").unlink()
    eventually(lambda: store.serving == {})
    shutil.copy(source, folder)

    serves(store, b"good 1")


def test_folder_deleted_and_made_again(folder: Path, store: FakeStore, source: Path) -> None:
    """A missing folder takes nothing away; the new one is heard, more than once."""
    shutil.copy(source, folder)
    serves(store, b"good 1")
    for content in (b"good 2", b"good 3"):
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "agent.wasm").write_bytes(content)
        serves(store, content)
        (folder / "agent.wasm").write_bytes(content + b" again")
        serves(store, content + b" again")


def test_missing_folder_is_reported_and_programs_stay(
    folder: Path, store: FakeStore, source: Path, watcher: Watcher
) -> None:
    """A folder that cannot be listed, as one that was unmounted, is an error in the status."""
    shutil.copy(source, folder)
    serves(store, b"good 1")
    shutil.rmtree(folder)
    eventually(lambda: watcher.stats().error is not None)

    assert {"agent"} == set(store.serving)
    folder.mkdir()
    eventually(lambda: store.serving == {})
    assert watcher.stats().error is None


def test_touched_without_change(folder: Path, store: FakeStore, watcher: Watcher) -> None:
    """The same bytes under a new time are no new version, also when they were rejected."""
    (folder / "agent.wasm").write_bytes(b"good 1")
    (folder / "wrong.wasm").write_bytes(b"bad")
    eventually(lambda: "agent" in store.serving and "wrong" in store.reasons)
    eventually(watcher.at_rest)
    for name in ("agent", "wrong"):
        os.utime(folder / f"{name}.wasm", (1, 1))
    eventually(lambda: watcher.stats().pending != {})
    eventually(watcher.at_rest)

    assert ["agent", "wrong"] == sorted(store.installs)


def test_sidecar_overrides_and_leaves(folder: Path, store: FakeStore) -> None:
    """`NAME.toml` goes along with the file, alone it waits, removed it no longer counts."""
    (folder / "agent.toml").write_bytes(b"[grants]")
    (folder / "agent.wasm").write_bytes(b"good 1")
    eventually(lambda: store.overrides.get("agent") == b"[grants]")
    (folder / "agent.toml").write_bytes(b"[grants]\nmemory_mb = 1")
    eventually(lambda: store.overrides.get("agent") == b"[grants]\nmemory_mb = 1")
    (folder / "agent.toml").unlink()
    eventually(lambda: store.overrides.get("agent", b"") is None)


def test_link_within_the_folder_is_swapped(folder: Path, store: FakeStore) -> None:
    """The way of Kubernetes: a link to a folder is replaced, no program file is ever written."""
    for version in ("1", "2"):
        (folder / f"..{version}").mkdir()
        (folder / f"..{version}" / "agent.wasm").write_bytes(b"good " + version.encode())
        (folder / "..new").symlink_to(f"..{version}")
        (folder / "..new").replace(folder / "..data")
        if version == "1":
            (folder / "agent.wasm").symlink_to("..data/agent.wasm")
        serves(store, b"good " + version.encode())


def test_many_at_once(folder: Path, store: FakeStore) -> None:
    """Each of a hundred files is installed once, one after the other."""
    for number in range(100):
        (folder / f"p{number}.wasm").write_bytes(b"good %d" % number)
    eventually(lambda: len(store.serving) == 100)

    assert 100 == len(store.installs)
    assert 1 == store.most_at_work


def test_version_that_comes_during_an_install(folder: Path, store: FakeStore) -> None:
    """A file that changes while it compiles is taken again in the next round."""
    store.gate.clear()
    (folder / "agent.wasm").write_bytes(b"good 1")
    eventually(lambda: store.installs == ["agent"])
    (folder / "agent.wasm").write_bytes(b"good 2")
    store.gate.set()

    serves(store, b"good 2")


def test_program_that_cannot_be_taken_does_not_stop_others(
    folder: Path, store: FakeStore, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that raises what nobody expects costs one program one round, not the watcher."""
    (folder / "a.wasm").write_bytes(b"good 1")
    serves(store, b"good 1", "a")
    monkeypatch.setattr(store, "progress", lambda *_: 1 / 0)
    monkeypatch.setattr(store, "remove", lambda *_: 1 / 0)
    (folder / "a.wasm").unlink()
    (folder / "b.wasm").write_bytes(b"good 2")

    serves(store, b"good 2", "b")
