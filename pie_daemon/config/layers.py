"""The layers in order: packaged defaults, /etc/pie, the user's folder, the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pie_client import paths
from pie_daemon.config import overrides as command_line
from pie_daemon.config import schema
from pie_daemon.config.check import to_config
from pie_daemon.config.complete import complete
from pie_daemon.config.compose import PACKAGED, PRIMARY, compose_groups, options
from pie_daemon.config.errors import COMMAND_LINE, ConfigError, Problem
from pie_daemon.config.files import ConfigFile, read
from pie_daemon.config.sections import PieConfig
from pie_daemon.config.tree import Key, Tree, dotted

SYSTEM_FOLDER = Path("/etc/pie")
CLI = "cli"


@dataclass(frozen=True)
class Row:
    """One key as `pie config show` prints it."""

    key: str
    value: Any
    default: Any
    source: str
    reload: str


@dataclass(frozen=True)
class Loaded:
    """A sound configuration, and where each of its values comes from."""

    config: PieConfig
    rows: list[Row]
    folders: list[Path]
    """What was searched, lowest layer first."""


def load(arguments: Sequence[str] = (), folders: Sequence[Path] | None = None) -> Loaded:
    """Composes, merges and checks; ConfigError names everything that is wrong.

    Args:
        arguments: overrides in Hydra's grammar, as given on the command line.
        folders: layers between the packaged defaults and the command line, lowest first;
            None takes `/etc/pie` and the user's configuration folder.
    """
    searched = [PACKAGED.resolve(), *_present(folders)]
    files = [read(path) for path in _layer_files(searched[1:])]
    groups = options(searched)
    asked = command_line.parse(arguments, frozenset(groups))
    tree = compose_groups(_choices(files, asked.choices, groups), searched)
    for file in files:
        tree.merge(file.values, file.lines, str(file.path))
    for key, value in asked.values:
        tree.assign(key, value, CLI)
    config = complete(to_config(tree))
    return Loaded(config, list(_rows(config, tree)), searched)


def _present(folders: Sequence[Path] | None) -> list[Path]:
    candidates = (SYSTEM_FOLDER, paths.config_dir()) if folders is None else folders
    return list(dict.fromkeys(f.resolve() for f in candidates if f.is_dir()))


def _layer_files(folders: Sequence[Path]) -> list[Path]:
    files = [folder / f"{PRIMARY}.yaml" for folder in folders]
    for folder in folders:
        if (misnamed := folder / f"{PRIMARY}.yml").exists():
            reason = f"would be ignored; call it {PRIMARY}.yaml"
            raise ConfigError([Problem(str(misnamed), "", reason)])
    return [file for file in files if file.exists()]


def _choices(
    files: Sequence[ConfigFile],
    asked: Mapping[str, str],
    groups: Mapping[str, Mapping[str, Path]],
) -> dict[str, str]:
    """Group -> option, the upper layers winning; each checked against what there is."""
    chosen, problems = {}, []
    layers = [(file.lines.get(("defaults",), str(file.path)), file.choices) for file in files]
    for where, choices in [*layers, (COMMAND_LINE, asked)]:
        for group, option in choices.items():
            chosen[group] = option
            if option not in groups.get(group, {}):
                problems.append(Problem(where, group, _no_option(group, option, groups)))
    if problems:
        raise ConfigError(problems)
    return chosen


def _no_option(group: str, option: str, groups: Mapping[str, Mapping[str, Path]]) -> str:
    if group not in groups:
        return f"there is no such group; the groups are: {', '.join(sorted(groups))}"
    names = sorted(groups[group])
    near = difflib.get_close_matches(option, names, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"there is no option {option!r}{hint}; the options are: {', '.join(names)}"


def _rows(config: PieConfig, tree: Tree) -> Iterator[Row]:
    plain = msgspec.to_builtins(config)
    standard = msgspec.to_builtins(complete(PieConfig()))
    for leaf in schema.leaves().values():
        for key in _instances(leaf.key, plain):
            yield Row(
                key=dotted(key),
                value=_shown(_get(plain, key), leaf),
                default=_get(standard, key),
                source=tree.source(key),
                reload=leaf.reload,
            )


def _instances(key: Key, values: dict[str, Any]) -> list[Key]:
    if schema.ANY_NAME not in key:
        return [key]
    place = key.index(schema.ANY_NAME)
    return [(*key[:place], name, *key[place + 1 :]) for name in _get(values, key[:place])]


def _shown(value: Any, leaf: schema.Leaf) -> Any:
    """Of a secret only the names, or how many there are."""
    if not leaf.is_secret:
        return value
    return dict.fromkeys(value, "***") if isinstance(value, dict) else ["***"] * len(value)


def _get(values: dict[str, Any], key: Key) -> Any:
    node: Any = values
    for name in key:
        node = node.get(name) if isinstance(node, dict) else None
    return node
