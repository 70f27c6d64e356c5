"""WIT interface `runtime`: who the program is, its log, its budgets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from pie_daemon import __version__
from pie_daemon.host.context import HostContext
from pie_daemon.host.interfaces.unsupported import refusals

_LEVELS = ("debug", "info", "warning", "error")


def version(host: HostContext) -> str:
    return __version__


def instance_id(host: HostContext) -> str:
    return host.instance_id


def program(host: HostContext) -> str:
    return host.program


def username(host: HostContext) -> str:
    return host.username


def log(host: HostContext, level: str, message: str) -> None:
    """An unknown level becomes `info`: a log call has no way to answer an error."""
    known = level.lower() if level.lower() in _LEVELS else "info"
    host.ports.emit("log", message.encode(), known)


def budget(host: HostContext) -> str:
    return msgspec.json.encode(host.ports.budget()).decode()


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "version": version,
    "instance-id": instance_id,
    "program": program,
    "username": username,
    "log": log,
    "budget": budget,
    **refusals(
        (
            "launch",
            "[method]child.id",
            "[method]child.subscribe",
            "[method]child.outcome",
            "[method]child.cancel",
        )
    ),
}
