from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[[dict[str, str]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Makes an inferlet's folder from file names and texts; a `pie.toml` comes by itself."""

    def make(files: dict[str, str]) -> Path:
        folder = tmp_path / "bot"
        for name, text in {"pie.toml": '[inferlet]\nname = "bot"\n', **files}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return folder

    return make
