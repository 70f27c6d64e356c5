"""From YAML files and the command line to one typed value. Importing it does not import Hydra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pie_daemon.config.complete import backend_configs, complete
from pie_daemon.config.errors import ConfigError, Problem
from pie_daemon.config.sections import PieConfig

if TYPE_CHECKING:
    from pie_daemon.config.layers import Loaded, Row

__all__ = [
    "ConfigError",
    "Loaded",
    "PieConfig",
    "Problem",
    "Row",
    "backend_configs",
    "complete",
    "load",
]


def load(arguments: Sequence[str] = (), folders: Sequence[Path] | None = None) -> Loaded:
    """See `pie_daemon.config.layers.load`; Hydra is imported on the first call."""
    from pie_daemon.config.layers import load as load_layers

    return load_layers(arguments, folders)
