"""Which content of a model directory it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pie_backend import fingerprint as module
from pie_backend.fingerprint import fingerprint


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(bytes(range(256)) * 1024)
    return tmp_path


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_every_file_counts(model: Path, name: str) -> None:
    """What else lies there does not."""
    before = fingerprint(model)
    (model / "README.md").touch()
    assert before == fingerprint(model)
    (model / name).write_bytes((model / name).read_bytes() + b" ")
    assert before != fingerprint(model)


def test_large_files_are_told_apart_by_samples(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first byte to the last; a copy elsewhere is the same."""
    monkeypatch.setattr(module, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(module, "_SAMPLE_BYTES", 16)
    weights = model / "model.safetensors"
    original = weights.read_bytes()
    before = fingerprint(model)
    for changed in (b"\xff" + original[1:], original[:-1] + b"\x00"):
        weights.write_bytes(changed)
        assert before != fingerprint(model)
    weights.write_bytes(bytes(255 - byte for byte in original[:1000]) + original[1000:])
    assert before != fingerprint(model)
    weights.write_bytes(original)
    assert before == fingerprint(model)
