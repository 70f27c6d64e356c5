"""What counts as a program, and what is refused without being opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pie_daemon.watcher.scan import scan


def test_only_program_files_are_seen(tmp_path: Path) -> None:
    """Half-written, hidden and special files are no programs, nor are folders."""
    (tmp_path / "agent.wasm").write_bytes(b"x")
    names = ".agent.wasm agent.wasm.tmp agent.wasm.part x.crdownload agent.wasm~ .#a.wasm 4913"
    for name in [*names.split(), ".nfs0001", "alone.toml", "readme.md"]:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.wasm").mkdir()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "deep.wasm").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.wasm")
    (tmp_path / "dangling.wasm").symlink_to(tmp_path / "nowhere")

    assert ["agent"] == list(scan(tmp_path, 100))


def test_sidecar_belongs_to_its_program(tmp_path: Path) -> None:
    """The manifest beside the file is part of the version."""
    (tmp_path / "agent.wasm").write_bytes(b"x")
    plain = scan(tmp_path, 100)["agent"]
    (tmp_path / "agent.toml").write_bytes(b"[grants]")
    both = scan(tmp_path, 100)["agent"]

    assert plain.sidecar_path is None
    assert tmp_path / "agent.toml" == both.sidecar_path
    assert plain.version != both.version


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty", b"", "empty.wasm is empty"),
        ("huge", b"x" * 101, "has 101 bytes; at most 100"),
        ("two words", b"x", "a name has letters"),
        ("-flag", b"x", "a name has letters"),
    ],
)
def test_refusals_have_a_reason(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    """Size and name are judged by the listing alone."""
    (tmp_path / f"{name}.wasm").write_bytes(content)

    assert reason in str(scan(tmp_path, 100)[name].refusal)


def test_name_that_is_no_text_is_shown_cleanly(tmp_path: Path) -> None:
    """Bytes and control characters of a file name never reach a terminal or a message."""
    os.write(os.open(os.fsencode(tmp_path) + b"/a\x1b\xff.wasm", os.O_CREAT | os.O_WRONLY), b"x")

    (item,) = scan(tmp_path, 100).values()

    assert "a??" == item.name
    assert item.refusal is not None


def test_links_may_stay_inside_only(tmp_path: Path) -> None:
    """A link to elsewhere could publish any file; one within the folder is a way to swap."""
    outside = tmp_path / "secret"
    outside.write_bytes(b"x")
    folder = tmp_path / "inferlets"
    (folder / "..data").mkdir(parents=True)
    (folder / "..data" / "a.wasm").write_bytes(b"x")
    (folder / "inside.wasm").symlink_to("..data/a.wasm")
    (folder / "outside.wasm").symlink_to(outside)

    items = scan(folder, 100)

    assert items["inside"].refusal is None
    assert "leaves the inferlet folder" in str(items["outside"].refusal)


def test_huge_sidecar_is_refused(tmp_path: Path) -> None:
    """A manifest is a page of text, whatever somebody called `.toml`."""
    (tmp_path / "a.wasm").write_bytes(b"x")
    (tmp_path / "a.toml").write_bytes(b"#" * 70_000)

    assert "a.toml has 70000 bytes" in str(scan(tmp_path, 100)["a"].refusal)


def test_missing_folder_is_an_error_not_an_empty_one(tmp_path: Path) -> None:
    """A folder that is not there says nothing about its programs."""
    with pytest.raises(FileNotFoundError):
        scan(tmp_path / "none", 100)
