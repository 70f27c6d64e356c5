"""The Hydra half: group files to one tree of values, with the line each value stands in."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pie_daemon.config.errors import ConfigError, Problem
from pie_daemon.config.files import explain_unreadable, line_numbers
from pie_daemon.config.tree import DEFAULT, Key, Tree

PACKAGED = Path(__file__).parent.parent / "conf"
PRIMARY = "config"

# compose() works on process-wide state of Hydra and is not thread-safe.
_lock = threading.Lock()


def options(folders: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """Group -> option -> file, over all folders."""
    found: dict[str, dict[str, Path]] = {}
    for folder in folders:
        for path in sorted(folder.glob("*/*.yaml")):
            group = found.setdefault(path.parent.name, {})
            if (first := group.get(path.stem)) is not None:
                reason = f"hidden by {first}; give it another name"
                raise ConfigError([Problem(str(path), "", reason)])
            group[path.stem] = path
    return found


def compose_groups(choices: Mapping[str, str], folders: Sequence[Path]) -> Tree:
    """Raises ConfigError; `folders` holds the packaged one first."""
    overrides = [f"{group}={option}" for group, option in choices.items()]
    if len(folders) > 1:
        urls = ",".join(f'"file://{folder}"' for folder in folders[1:])
        overrides.append(f"hydra.searchpath=[{urls}]")
    try:
        with _lock, initialize_config_dir(str(folders[0]), version_base="1.3"):
            values: Any = OmegaConf.to_container(compose(PRIMARY, overrides), resolve=False)
            # Without a choice every value is a packaged default, wherever it stands.
            used = _used_files(overrides) if choices else []
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise ConfigError([_explain(error, folders)]) from error
    tree = Tree()
    tree.merge(values, _sources(used, folders), DEFAULT)
    return tree


def _used_files(overrides: list[str]) -> list[tuple[str, str]]:
    """(config path, package) of what was composed, later ones winning."""
    loader = GlobalHydra.instance().config_loader()
    defaults = loader.compute_defaults_list(PRIMARY, overrides, RunMode.RUN).defaults
    return [(d.config_path or "", d.package or "") for d in defaults]


def _sources(used: list[tuple[str, str]], folders: Sequence[Path]) -> dict[Key, str]:
    """Where each value was written; what the packaged defaults chose themselves is `default`."""
    standard = _standard_files(folders[0])
    found: dict[Key, str] = {}
    for name, package in used:
        path = _locate(name, folders)
        if path is None:
            continue
        prefix = tuple(package.split(".")) if package else ()
        lines = line_numbers(path, prefix)
        found |= dict.fromkeys(lines, DEFAULT) if path in standard else lines
    return found


def _standard_files(packaged: Path) -> set[Path]:
    primary = packaged / f"{PRIMARY}.yaml"
    defaults: Any = yaml.safe_load(primary.read_text())["defaults"]
    groups = [entry for entry in defaults if isinstance(entry, dict)]
    return {primary} | {packaged / g / f"{o}.yaml" for entry in groups for g, o in entry.items()}


def _locate(name: str, folders: Sequence[Path]) -> Path | None:
    paths = (folder / f"{name}.yaml" for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def _explain(error: Exception, folders: Sequence[Path]) -> Problem:
    if (mark := getattr(error, "problem_mark", None)) is not None:
        return explain_unreadable(Path(mark.name), error)
    # Hydra hides the reason of a failed merge in the cause.
    reason = str(error.__cause__ or error).splitlines()[0]
    return Problem(str(folders[-1]), "", f"cannot be composed: {reason}")
