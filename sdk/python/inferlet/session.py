"""The line to the client that launched this program."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from inferlet import _host, _json
from inferlet.events import Waitable


@dataclass(frozen=True)
class Blob:
    """Named bytes from the client."""

    name: str
    data: bytes


def send(message: str) -> None:
    """Sends text; blocks while the client lags too far behind."""
    _host.call(_host.session.send, message)


def send_event(type: str, **fields: Any) -> None:
    """Sends `{"type": type, ...fields}` as JSON, the form that chat clients understand."""
    send(_json.dumps_event(type, fields))


def send_bytes(name: str, data: bytes) -> None:
    _host.call(_host.session.send_bytes, name, data)


def receive() -> str | Blob | None:
    """Blocks for the next message; None once the client has closed its side.

    A client that only loses its connection or detaches has not closed anything.
    """
    message = _host.call(_host.session.receive)
    if message is None:
        return None
    if isinstance(message.value, str):
        return message.value
    name, data = message.value
    return Blob(name, bytes(data))


def messages() -> Iterator[str | Blob]:
    """Every message until the client closes its side."""
    while (message := receive()) is not None:
        yield message


def waitable() -> Waitable:
    """Lets the module itself stand in `events.wait_any` for "a message has come"."""
    return Waitable(_host.session.subscribe())
