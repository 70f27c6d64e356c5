"""WIT interface `events`: waiting on several things at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pie_daemon.host.context import HostContext
from pie_daemon.host.waitable import Waitable, timer, wait_any


def ready(host: HostContext, waitable: Waitable) -> bool:
    return waitable.ready()


def wait_any_of(host: HostContext, items: list[Waitable], timeout_ms: int | None) -> list[int]:
    return wait_any(host.mailbox, items, None if timeout_ms is None else timeout_ms / 1000)


def new_timer(host: HostContext, duration_ms: int) -> Waitable:
    return timer(duration_ms / 1000)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "[method]waitable.ready": ready,
    "wait-any": wait_any_of,
    "timer": new_timer,
}
