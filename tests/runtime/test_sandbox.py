"""The cache of compiled components, which several daemons and runs may share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pie_daemon.runtime import sandbox


def compiled(folder: Path, name: str, used_s: float) -> Path:
    path = folder / f"{name}.cwasm"
    path.write_bytes(b"x" * 100)
    os.utime(path, (used_s, used_s))
    return path


def test_a_full_cache_loses_what_was_not_used_for_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But nothing that was used within the hour, by whichever process."""
    monkeypatch.setattr(sandbox, "_MAX_CACHE_BYTES", 250)
    for name, used_s in (("oldest", 0), ("old", 1000), ("late", 9000), ("now", 9500)):
        compiled(tmp_path, name, used_s)

    sandbox._prune(tmp_path, now_s=10_000)
    assert {"late", "now"} == {path.stem for path in tmp_path.iterdir()}

    monkeypatch.setattr(sandbox, "_MAX_CACHE_BYTES", 50)
    sandbox._prune(tmp_path, now_s=10_000)
    assert {"late", "now"} == {path.stem for path in tmp_path.iterdir()}


def test_a_file_that_vanishes_meanwhile_is_no_error(tmp_path: Path) -> None:
    """Another process may clear the same folder at the same time."""
    compiled(tmp_path, "there", 0)
    (tmp_path / "gone.cwasm").symlink_to(tmp_path / "nothing")

    assert ["there"] == [path.stem for _, _, path in sandbox._files(tmp_path)]
