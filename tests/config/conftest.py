"""Every test of the configuration starts with empty layers."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's layer, empty; nothing of the machine the tests run on is read."""
    user = tmp_path / "user"
    user.mkdir()
    monkeypatch.setenv("PIE_CONFIG_DIR", str(user))
    monkeypatch.setenv("PIE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr("pie_daemon.config.layers.SYSTEM_FOLDER", tmp_path / "etc")
    return user
