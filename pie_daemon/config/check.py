"""From a merged tree to the typed configuration, or to everything that is wrong with it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

import msgspec
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pie_daemon.config import schema
from pie_daemon.config.errors import COMMAND_LINE, ConfigError, Problem
from pie_daemon.config.sections import PieConfig
from pie_daemon.config.tree import DEFAULT, Key, Tree, dotted, flatten
from pie_daemon.gateway.config import exposure


def to_config(tree: Tree) -> PieConfig:
    """Raises ConfigError with every problem, not only the first."""
    values = _resolve(tree)
    problems = list(_problems(values, tree))
    if problems:
        raise ConfigError(problems)
    config = msgspec.convert(values, PieConfig)
    problems = list(_conflicts(config, tree))
    if problems:
        raise ConfigError(problems)
    return config


def _resolve(tree: Tree) -> dict[str, Any]:
    """Interpolations become values here, once: a later change of the environment does nothing."""
    unset = [key for key, value in flatten(tree.values) if value == "???"]
    if unset:
        raise ConfigError([_problem(tree, key, "has no value (???)") for key in unset])
    try:
        values: Any = OmegaConf.to_container(OmegaConf.create(tree.values), resolve=True)
    except OmegaConfBaseException as error:
        key = tuple((error.full_key or "").split("."))
        raise ConfigError([_problem(tree, key, str(error.msg).splitlines()[0])]) from error
    return dict(values)


def _problems(values: dict[str, Any], tree: Tree) -> Iterator[Problem]:
    for key, value in flatten(values):
        for known, part in _known(key, value):
            if (reason := _reason(known, part)) is not None:
                yield _problem(tree, known, reason)


def _known(key: Key, value: Any) -> Iterator[tuple[Key, Any]]:
    """The key as the schema cuts it: a leaf that holds a mapping by mistake is one leaf."""
    for end in range(2, len(key)):
        if key[0] != schema.MODELS and schema.find(key[:end]) is not None:
            yield key[:end], {".".join(key[end:]): value}
            return
    yield key, value


def _reason(key: Key, value: Any) -> str | None:
    if schema.is_section(key):
        return None if value == {} else f"is a section with keys below it, not {value!r}"
    leaf = schema.find(key)
    if leaf is None:
        return schema.unknown(key)
    try:
        msgspec.convert(value, leaf.type)
    except msgspec.ValidationError:
        what = "the value" if leaf.is_secret else repr(value)
        return f"{what} is not allowed; expected {leaf.allowed}"
    return None


def _conflicts(config: PieConfig, tree: Tree) -> Iterator[Problem]:
    """What single keys cannot show."""
    scheduler, model = config.scheduler, config.model
    if scheduler.max_batch_tokens < scheduler.page_size:
        reason = f"must be at least scheduler.page_size ({scheduler.page_size})"
        yield _problem(tree, ("scheduler", "max_batch_tokens"), reason)
    yield from _outside(config, tree)
    if config.models and model.path is None and model.name not in (None, *config.models):
        reason = f"{model.name!r} is none of `models`: {', '.join(config.models)}"
        yield _problem(tree, ("model", "name"), reason)
    if model.path is not None and model.name in config.models:
        reason = f"{model.name!r} has a path of its own in `models`; set only one of them"
        yield _problem(tree, ("model", "path"), reason)
    if model.adapters is not None and model.path is None and config.models:
        name = model.name or next(iter(config.models))
        reason = f"the default model is one of `models`: set models.{name}.adapters instead"
        yield _problem(tree, ("model", "adapters"), reason)
    if (exposed := exposure(config.gateway)) is not None:
        yield _problem(tree, ("gateway", "host"), exposed)


def _outside(config: PieConfig, tree: Tree) -> Iterator[Problem]:
    for name, server in config.mcp.servers.items():
        key = ("mcp", "servers", name)
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            yield _problem(tree, key, "a name is made of letters, digits, - and _")
        if (server.command is None) == (server.url is None):
            yield _problem(tree, key, "needs a command or a url, and not both")
        elif server.url is not None and not server.url.startswith(("http://", "https://")):
            yield _problem(tree, (*key, "url"), "begins with http:// or https://")
    for network in config.limits.http_networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            yield _problem(tree, ("limits", "http_networks"), f"{network!r} is no network: {error}")


def _problem(tree: Tree, key: Key, reason: str) -> Problem:
    source = tree.source(key)
    where = {"cli": COMMAND_LINE, DEFAULT: "packaged defaults"}.get(source, source)
    return Problem(where, dotted(key), reason)
