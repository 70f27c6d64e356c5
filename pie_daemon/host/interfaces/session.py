"""WIT interface `session`: the program's conversation with its client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pie_daemon.host.context import HostContext
from pie_daemon.host.inbox import Message
from pie_daemon.host.waitable import Waitable


def send(host: HostContext, message: str) -> None:
    host.ports.emit("message", message.encode(), "")


def send_bytes(host: HostContext, name: str, data: bytes) -> None:
    host.ports.emit("blob", data, name)


def subscribe(host: HostContext) -> Waitable:
    return Waitable(lambda: host.inbox.ready)


def receive(host: HostContext) -> Message | None:
    host.mailbox.wait(lambda: host.inbox.ready, None)
    return host.inbox.take()


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "send": send,
    "send-bytes": send_bytes,
    "subscribe": subscribe,
    "receive": receive,
}
