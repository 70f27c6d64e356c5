"""The command line's share: Hydra's override grammar, cut down to what a daemon can mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException

from pie_daemon.config import schema
from pie_daemon.config.errors import COMMAND_LINE, ConfigError, Problem
from pie_daemon.config.tree import Key, dotted, flatten


@dataclass
class Overrides:
    """What was asked for, in order; the last of two settings of one key wins."""

    choices: dict[str, str] = field(default_factory=dict)
    values: list[tuple[Key, Any]] = field(default_factory=list)


def parse(arguments: Sequence[str], groups: frozenset[str]) -> Overrides:
    """Raises ConfigError with every argument that cannot be meant."""
    parsed, problems = Overrides(), []
    for argument in arguments:
        try:
            _take(argument, groups, parsed)
        except _Refused as refused:
            problems.append(Problem(COMMAND_LINE, argument, str(refused)))
    if problems:
        raise ConfigError(problems)
    return parsed


class _Refused(Exception):
    """One argument, and why it is not taken."""


def _take(argument: str, groups: frozenset[str], into: Overrides) -> None:
    name, override = _parse_one(argument)
    if (reason := _refusal(override)) is not None:
        raise _Refused(reason)
    value = override.value()
    if name not in groups:
        into.values += _leaves(_split(name), value)
    elif isinstance(value, str):
        into.choices[name] = value
    else:
        raise _Refused(f"{name}=OPTION chooses a file; set single keys as {name}.KEY=VALUE")


def _leaves(key: Key, value: Any) -> list[tuple[Key, Any]]:
    """`models={a: {path: x}}` sets the keys below it one by one."""
    if isinstance(value, dict) and value and schema.is_section(key):
        return list(flatten(value, key))
    return [(key, value)]


def _parse_one(argument: str) -> tuple[str, Override]:
    """The key and what the grammar makes of it; given names hold what it has no token for."""
    name, equals, value = argument.partition("=")
    is_named = any(name.startswith(f"{dotted(prefix)}.") for prefix in schema.NAMED)
    text = f"{schema.MODELS}={value}" if is_named and equals else argument
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        if not equals:
            raise _Refused("expected KEY=VALUE") from error
        reason = str(error).splitlines()[0]
        raise _Refused(
            f"cannot be read ({reason}); quote such a value twice: '{name}=\"{value}\"'"
        ) from error
    return (name if is_named else override.key_or_group), override


def _refusal(override: Override) -> str | None:
    if override.is_hydra_override():
        return "Hydra's own settings are fixed by the daemon"
    if override.type in (OverrideType.ADD, OverrideType.FORCE_ADD):
        return "no + is needed: every key exists already"
    if override.type != OverrideType.CHANGE:
        return "a key cannot be deleted; set it to the value you want"
    if override.is_sweep_override():
        return "one value only; quote commas: 'KEY=\"a,b\"'"
    if override.package is not None:
        return "packages are not supported"
    return None


def _split(name: str) -> Key:
    """Dotted name to key; the name of a model may hold dots itself."""
    parts = name.replace("/", ".").split(".")
    if parts[0] == schema.MODELS and len(parts) > 3:
        return (parts[0], ".".join(parts[1:-1]), parts[-1])
    return tuple(parts)
