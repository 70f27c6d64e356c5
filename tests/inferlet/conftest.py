from __future__ import annotations

import importlib.util
from collections.abc import Callable
from types import ModuleType

import pytest

from inferlet import _host
from support.fake_pie import FakePie
from support.guests import REPOSITORY


@pytest.fixture
def pie(monkeypatch: pytest.MonkeyPatch) -> FakePie:
    """The host that the guest package talks to in this test."""
    pie = FakePie()
    for name, interface in pie.interfaces.items():
        monkeypatch.setitem(vars(_host), name, interface)
    return pie


@pytest.fixture
def shipped() -> Callable[[str], ModuleType]:
    """Loads the `main.py` of a shipped inferlet, or of an example of the documentation."""

    def load(name: str) -> ModuleType:
        folders = [REPOSITORY / root / name for root in ("sdk/inferlets", "docs/examples")]
        path = next(folder / "main.py" for folder in folders if folder.is_dir())
        spec = importlib.util.spec_from_file_location(f"shipped_{name.replace('-', '_')}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
