"""WIT interface `runtime`: who the program is, its log, its budgets, its children."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from pie_daemon import __version__
from pie_daemon.errors import PieError
from pie_daemon.host.context import HostContext, LaunchedChild
from pie_daemon.host.interfaces.launch import parse_launch_options
from pie_daemon.host.table import Table
from pie_daemon.host.waitable import Waitable

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


class Child:
    """A launched instance behind its handle. Dropped by the program it runs on; when the program
    ends, by whatever road, it is cancelled."""

    def __init__(self, launched: LaunchedChild, table: Table) -> None:
        self.launched = launched
        self._table = table

    def close(self) -> None:
        self.launched.let_go(cancel=self._table.closed)


def launch(host: HostContext, program: str, program_input: str, options: str) -> Child:
    parsed = parse_launch_options(options)
    if len(host.table) >= host.table.max_handles:
        # Now, since without a handle the child would be out of reach.
        raise PieError("exhausted", f"{len(host.table)} handles are open; drop some")
    return Child(host.ports.launch(program, program_input, parsed), host.table)


def child_id(host: HostContext, child: Child) -> str:
    return child.launched.id


def subscribe(host: HostContext, child: Child) -> Waitable:
    return Waitable(lambda: child.launched.outcome() is not None)


def outcome(host: HostContext, child: Child) -> tuple[str, str | PieError] | None:
    return child.launched.outcome()


def cancel(host: HostContext, child: Child) -> None:
    child.launched.cancel()


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "version": version,
    "instance-id": instance_id,
    "program": program,
    "username": username,
    "log": log,
    "budget": budget,
    "launch": launch,
    "[method]child.id": child_id,
    "[method]child.subscribe": subscribe,
    "[method]child.outcome": outcome,
    "[method]child.cancel": cancel,
}
