"""Durable pairs of key and value, which every run of this program for this user finds again."""

from __future__ import annotations

from inferlet import _host


def get(key: str) -> bytes | None:
    """The value, or None when there is none."""
    value = _host.call(_host.storage.get, key)
    return None if value is None else bytes(value)


def set(key: str, value: bytes | str) -> None:
    """Once it returns, the value survives a crash. Text is stored as UTF-8."""
    _host.call(_host.storage.set, key, value.encode() if isinstance(value, str) else value)


def delete(key: str) -> None:
    """Durable like `set`; a key that does not exist is fine."""
    _host.call(_host.storage.delete, key)


def keys(prefix: str = "") -> list[str]:
    """All keys that begin with `prefix`, in the order of their characters."""
    return list(_host.call(_host.storage.keys, prefix))
