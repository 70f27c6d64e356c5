"""The program store: names, versions, files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from wasmtime import wat2wasm

from pie_bakery.component import with_custom_section
from pie_daemon.errors import PieError
from pie_daemon.runtime.programs import SYSTEM, ProgramStore
from support.wat import OK_EMPTY, program

MAX_BYTES = 100_000
BYTES = bytes(wat2wasm(program("", OK_EMPTY)))


class FakeSandbox:
    """Compiles nothing; refuses what it is told to."""

    def __init__(self) -> None:
        self.refuse = ""
        self.compiled: list[str] = []

    def check_imports(self, names: Iterable[str]) -> None:
        pass

    def compile(self, wasm: Path, digest: str) -> None:
        assert wasm.is_file()
        if self.refuse:
            raise PieError("invalid-argument", self.refuse)
        self.compiled.append(digest)


@pytest.fixture
def sandbox() -> FakeSandbox:
    return FakeSandbox()


@pytest.fixture
def store(tmp_path: Path, sandbox: FakeSandbox) -> ProgramStore:
    return ProgramStore(tmp_path / "store", sandbox, MAX_BYTES)


def component(path: Path, note: bytes = b"", manifest: bytes | None = None) -> Path:
    data = with_custom_section(BYTES, "note", note)
    if manifest is not None:
        data = with_custom_section(data, "pie:manifest", manifest)
    path.write_bytes(data)
    return path


def objects(tmp_path: Path) -> set[str]:
    return {path.stem for path in (tmp_path / "store/objects").iterdir()}


def test_a_bare_file_has_its_stem_as_its_name(store: ProgramStore, tmp_path: Path) -> None:
    """Without a manifest, and whatever happens to the file afterwards."""
    source = component(tmp_path / "plain.wasm")
    program = store.install(source, SYSTEM)
    source.unlink()

    assert "plain" == program.name
    assert program is store.resolve("anybody", "plain")
    assert program is store.resolve("anybody", f"sha256:{program.digest}")


def test_the_manifest_names_and_the_override_wins(store: ProgramStore, tmp_path: Path) -> None:
    """A file beside the component overrides what travels inside of it."""
    inside = b'[inferlet]\nname = "inside"\n[grants]\nmemory_mb = 64\n'
    source = component(tmp_path / "file.wasm", manifest=inside)
    assert "inside" == store.install(source, SYSTEM).name

    program = store.install(source, SYSTEM, "named", b"[grants]\nmemory_mb = 32\n")
    assert ("named", 32) == (program.name, program.manifest.grants.memory_mb)


def test_a_users_program_never_shadows_the_systems(store: ProgramStore, tmp_path: Path) -> None:
    """And other users do not see it."""
    system = store.install(component(tmp_path / "a.wasm", b"1"), SYSTEM, "same")
    store.install(component(tmp_path / "b.wasm", b"2"), "ann", "same")
    own = store.install(component(tmp_path / "c.wasm", b"3"), "ann", "own")

    assert system is store.resolve("ann", "same")
    assert own is store.resolve("ann", "own")
    with pytest.raises(PieError, match="no program is called 'own'"):
        store.resolve("bob", "own")
    assert {"same"} == {info.name for info in store.programs("bob")}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"#!/bin/sh\n", "not a WebAssembly component"),
        (b"x" * (MAX_BYTES + 1), "limits.upload_bytes"),
    ],
)
def test_a_broken_candidate_leaves_the_working_version(
    store: ProgramStore, tmp_path: Path, content: bytes, reason: str
) -> None:
    """Its reason is shown beside the version that serves on, and its file is not kept."""
    working = store.install(component(tmp_path / "p.wasm"), SYSTEM)
    (tmp_path / "p.wasm").write_bytes(content)
    with pytest.raises(PieError, match=reason):
        store.install(tmp_path / "p.wasm", SYSTEM)
    [info] = store.programs()

    assert working is store.resolve("anybody", "p")
    assert ("ready", working.digest) == (info.state, info.digest)
    assert reason in (info.reason or "")
    assert {working.digest} == objects(tmp_path)


def test_a_rejected_program_is_not_found_and_says_why(
    store: ProgramStore, tmp_path: Path, sandbox: FakeSandbox
) -> None:
    """While one that is being compiled asks to try again."""
    sandbox.refuse = "nonsense inside"
    with pytest.raises(PieError, match="nonsense inside"):
        store.install(component(tmp_path / "p.wasm"), SYSTEM)
    with pytest.raises(PieError, match="rejected: nonsense inside") as refused:
        store.resolve("anybody", "p")
    assert "not-found" == refused.value.code
    store.progress(SYSTEM, "q", "compiling")
    with pytest.raises(PieError, match="compiling") as refused:
        store.resolve("anybody", "q")
    assert "busy" == refused.value.code


def test_a_replaced_version_drains_and_its_file_goes(store: ProgramStore, tmp_path: Path) -> None:
    """It is shown as draining for as long as an instance of it runs."""
    old = store.install(component(tmp_path / "p.wasm", b"old"), SYSTEM)
    store.acquire(old)
    new = store.install(component(tmp_path / "p.wasm", b"new"), SYSTEM)
    states = {info.digest: (info.state, info.instances) for info in store.programs()}

    assert {old.digest: ("draining", 1), new.digest: ("ready", 0)} == states
    assert {new.digest} == objects(tmp_path)
    store.release(old)
    assert [new.digest] == [info.digest for info in store.programs()]


def test_a_removed_program_is_gone_for_new_launches(store: ProgramStore, tmp_path: Path) -> None:
    """Removing twice is harmless."""
    store.install(component(tmp_path / "p.wasm"), SYSTEM)
    store.remove(SYSTEM, "p")
    store.remove(SYSTEM, "p")

    assert [] == store.programs()
    assert set() == objects(tmp_path)


def test_uploads_come_back_after_a_restart(tmp_path: Path, sandbox: FakeSandbox) -> None:
    """Those of users; what lay in the folder is the folder's to bring back."""
    first = ProgramStore(tmp_path / "store", sandbox, MAX_BYTES)
    first.install(component(tmp_path / "s.wasm", b"1"), SYSTEM, "of-the-folder")
    uploaded = first.install(component(tmp_path / "u.wasm", b"2"), "ann", "mine")

    second = ProgramStore(tmp_path / "store", sandbox, MAX_BYTES)
    second.restore()
    assert ["mine"] == [info.name for info in second.programs()]
    assert uploaded.digest == second.resolve("ann", "mine").digest
    assert {uploaded.digest} == objects(tmp_path)


def test_a_damaged_upload_index_is_set_aside(tmp_path: Path, sandbox: FakeSandbox) -> None:
    """The daemon starts, and the file is kept for a person to look at."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store/uploads.json").write_text("{broken")
    store = ProgramStore(tmp_path / "store", sandbox, MAX_BYTES)

    assert [] == store.programs()
    assert "{broken" == (tmp_path / "store/uploads.broken").read_text()
