"""A directory is recognised as a model, or refused with the way out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pie_backend.base import BackendError
from pie_backend.model_dir import resolve


def write(path: Path, config: str, generation: str | None = None) -> Path:
    (path / "config.json").write_text(config)
    if generation is not None:
        (path / "generation_config.json").write_text(generation)
    return path


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [
        ("{}", None, []),
        ('{"eos_token_id": 2}', None, [2]),
        ('{"eos_token_id": 2}', "{}", [2]),
        ('{"eos_token_id": 2}', '{"eos_token_id": [3, 0]}', [3, 0]),
        ('{"eos_token_id": null}', '{"eos_token_id": 4}', [4]),
    ],
)
def test_eos_tokens(
    tmp_path: Path, config: str, generation: str | None, expected: list[int]
) -> None:
    """generation_config wins over config; one id or many."""
    assert resolve(write(tmp_path, config, generation)).eos_tokens == expected


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ("", "cannot be read"),
        ("[1]", "holds a list; expected a JSON object"),
        ("[" * 100_000, "cannot be read"),
        ('{"architectures": ["X"', "cannot be read"),
    ],
)
def test_unreadable_config(tmp_path: Path, config: str, complaint: str) -> None:
    """Whatever is wrong with config.json, the error names the file."""
    with pytest.raises(BackendError, match=complaint) as caught:
        resolve(write(tmp_path, config))
    assert str(tmp_path / "config.json") in str(caught.value)


def test_not_a_model(tmp_path: Path) -> None:
    """A path that is missing, a file, or an empty directory gets advice of its own."""
    with pytest.raises(BackendError, match="Pie downloads nothing"):
        resolve("org/some-model")
    with pytest.raises(BackendError, match=r"holds no config\.json"):
        resolve(tmp_path)
    (tmp_path / "model.gguf").touch()
    with pytest.raises(BackendError, match="give the directory"):
        resolve(tmp_path / "model.gguf")


def test_light_modules_leave_torch_alone() -> None:
    """What the daemon imports before a backend is chosen loads neither torch nor transformers."""
    modules = "base batch chat_template create dummy model_dir process rng tokenizer worker"
    imports = "; ".join(f"import pie_backend.{name}" for name in modules.split())
    check = f"import sys; {imports}; sys.exit('torch' in sys.modules)"
    environment = {"PYTHONPATH": str(Path(__file__).parents[2] / "backend")}
    assert (
        subprocess.run([sys.executable, "-c", check], env=environment, check=False).returncode == 0
    )
