"""Where Pie keeps its files. The daemon, its CLI and every client agree through this module.

Each directory is taken from its own variable, else from the XDG base directories. Nothing is
created here; only the standard library is imported.
"""

from __future__ import annotations

import os
from pathlib import Path


def _directory(override: str, xdg: str, fallback: str) -> Path:
    if own := os.environ.get(override):
        return Path(own).expanduser().absolute()
    base = os.environ.get(xdg, "")
    # The XDG specification says that relative values are invalid and must be ignored.
    return (Path(base) if base.startswith("/") else Path.home() / fallback) / "pie"


def state_dir() -> Path:
    """Programs, caches and saved contexts: `PIE_STATE_DIR`, else `$XDG_STATE_HOME/pie`."""
    return _directory("PIE_STATE_DIR", "XDG_STATE_HOME", ".local/state")


def config_dir() -> Path:
    """The user's configuration: `PIE_CONFIG_DIR`, else `$XDG_CONFIG_HOME/pie`."""
    return _directory("PIE_CONFIG_DIR", "XDG_CONFIG_HOME", ".config")


def runtime_dir() -> Path:
    """Socket and lock: `PIE_RUNTIME_DIR`, else `$XDG_RUNTIME_DIR/pie`, else `<state_dir>/run`."""
    own = os.environ.get("PIE_RUNTIME_DIR")
    if own or os.environ.get("XDG_RUNTIME_DIR", "").startswith("/"):
        return _directory("PIE_RUNTIME_DIR", "XDG_RUNTIME_DIR", "")
    return state_dir() / "run"


def default_endpoint() -> str:
    """The endpoint that daemon and clients use when nobody names one."""
    return f"ipc://{runtime_dir()}/pie.sock"
