"""WIT interface `storage`: durable key-value pairs of (user, program)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pie_daemon.host.context import HostContext


def get(host: HostContext, key: str) -> bytes | None:
    return host.storage.get(key)


def set_value(host: HostContext, key: str, value: bytes) -> None:
    _write(host, key, value)


def delete(host: HostContext, key: str) -> None:
    _write(host, key, None)


def keys(host: HostContext, prefix: str) -> list[str]:
    return host.storage.keys(prefix)


def _write(host: HostContext, key: str, value: bytes | None) -> None:
    write = host.storage.write(key, value, host.mailbox.wake)
    host.mailbox.wait(lambda: write.done)
    if write.error is not None:
        raise write.error


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "get": get,
    "set": set_value,
    "delete": delete,
    "keys": keys,
}
