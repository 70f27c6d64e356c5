"""Reading one YAML file, with the line of every key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pie_daemon.config.errors import ConfigError, Problem
from pie_daemon.config.tree import Key


@dataclass(frozen=True)
class ConfigFile:
    path: Path
    values: dict[str, Any]
    """Without the defaults list; interpolations are still text."""
    choices: dict[str, str]
    """Group -> option, from the defaults list."""
    lines: dict[Key, str]
    """Key -> `file:line`."""


def read(path: Path) -> ConfigFile:
    """Raises ConfigError when the file is not a mapping in sound YAML."""
    try:
        loaded = OmegaConf.load(path)
        lines = line_numbers(path)
    except (yaml.YAMLError, UnicodeDecodeError, OSError, OmegaConfBaseException) as error:
        raise ConfigError([explain_unreadable(path, error)]) from error
    if not isinstance(loaded, DictConfig):
        raise ConfigError([Problem(f"{path}:1", "", "expected `key: value` lines at the top")])
    values: Any = OmegaConf.to_container(loaded, resolve=False)
    choices = _choices(path, values.pop("defaults", None) or [], lines)
    return ConfigFile(path, values, choices, lines)


def explain_unreadable(path: Path, error: Exception) -> Problem:
    mark = getattr(error, "problem_mark", None)
    where = f"{path}:{mark.line + 1}" if mark else str(path)
    reason = getattr(error, "problem", None) or getattr(error, "strerror", None) or str(error)
    kind = "cannot be read" if isinstance(error, OSError) else "not valid YAML"
    return Problem(where, "", f"{kind}: {reason}")


def _choices(path: Path, defaults: Any, lines: dict[Key, str]) -> dict[str, str]:
    """`defaults: [{backend: cuda}]` of a layer; `override backend` means the same."""
    entries = defaults if isinstance(defaults, list) else [defaults]
    found: dict[str, str] = {}
    for entry in entries:
        if entry == "_self_":
            continue
        if not isinstance(entry, dict) or not all(isinstance(v, str) for v in entry.values()):
            where = lines.get(("defaults",), str(path))
            reason = f"expected entries like `- backend: cuda`, got {entry!r}"
            raise ConfigError([Problem(where, "defaults", reason)])
        found |= {str(k).removeprefix("override "): v for k, v in entry.items()}
    return found


def line_numbers(path: Path, prefix: Key = ()) -> dict[Key, str]:
    """`file:line` of every key of a YAML file, below `prefix`."""
    node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    found: dict[Key, str] = {}
    if isinstance(node, yaml.MappingNode):
        _collect(node, prefix, path, found)
    return found


def _collect(node: yaml.MappingNode, prefix: Key, path: Path, found: dict[Key, str]) -> None:
    for name, value in node.value:
        key = (*prefix, str(name.value))
        found[key] = f"{path}:{name.start_mark.line + 1}"
        if isinstance(value, yaml.MappingNode):
            _collect(value, key, path, found)
