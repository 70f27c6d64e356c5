"""The package: what importing it costs, and where it looks for the daemon."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pie_client
from pie_client import paths

VARIABLES = (
    "PIE_STATE_DIR PIE_RUNTIME_DIR PIE_CONFIG_DIR XDG_STATE_HOME XDG_RUNTIME_DIR XDG_CONFIG_HOME"
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES.split():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/ada")


def test_importing_it_loads_nothing_heavy() -> None:
    """`import pie_client` and its paths load neither asyncio nor any other package."""
    code = (
        "import sys, pie_client, pie_client.paths\n"
        "print([name for name in ('zmq', 'asyncio', 'msgspec') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_zeromq_is_loaded_by_connecting() -> None:
    """The client classes can be imported without loading ZeroMQ."""
    code = "import sys, pie_client.sync; print('zmq' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_every_name_resolves() -> None:
    """Everything that the package offers can be had; anything else is an AttributeError."""
    for name in pie_client.__all__:
        assert getattr(pie_client, name).__name__ == name
    with pytest.raises(AttributeError, match="Clinet"):
        pie_client.Clinet  # noqa: B018


def test_paths_follow_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any variable the XDG defaults hold; the runtime directory falls back to the state."""
    assert paths.state_dir() == Path("/home/ada/.local/state/pie")
    assert paths.config_dir() == Path("/home/ada/.config/pie")
    assert paths.runtime_dir() == Path("/home/ada/.local/state/pie/run")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert paths.default_endpoint() == "ipc:///run/user/7/pie/pie.sock"
    assert paths.state_dir() == Path("/state/pie")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
    assert paths.runtime_dir() == Path("/state/pie/run")


def test_own_variables_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """PIE_*_DIR name the directories themselves."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    for name in ("STATE", "RUNTIME", "CONFIG"):
        monkeypatch.setenv(f"PIE_{name}_DIR", f"/pie/{name.lower()}")
    assert paths.state_dir() == Path("/pie/state")
    assert paths.runtime_dir() == Path("/pie/runtime")
    assert paths.config_dir() == Path("/pie/config")
    monkeypatch.setenv("PIE_STATE_DIR", "~/pie")
    assert paths.state_dir() == Path("/home/ada/pie")
