"""What a program tells its client, in the order in which it told it."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from pie_client import wire


class Stdout(msgspec.Struct, frozen=True):
    seq: int
    text: str


class Stderr(msgspec.Struct, frozen=True):
    seq: int
    text: str


class Log(msgspec.Struct, frozen=True):
    """A line of the program's own log."""

    seq: int
    level: str
    text: str


class Message(msgspec.Struct, frozen=True):
    """What the program sent with `session.send`."""

    seq: int
    text: str

    def json(self) -> Any:
        """The text as JSON; ValueError when it is none."""
        return msgspec.json.decode(self.text)


class Blob(msgspec.Struct, frozen=True):
    seq: int
    name: str
    data: bytes


class Gap(msgspec.Struct, frozen=True):
    """Events [start, end) are no longer kept; somebody has acknowledged them before."""

    start: int
    end: int


class Finished(msgspec.Struct, frozen=True):
    """The last event."""

    seq: int
    outcome: wire.Outcome


Event: TypeAlias = Stdout | Stderr | Log | Message | Blob | Gap | Finished


def from_wire(seq: int, kind: str, name: str, data: bytes) -> Event:
    """The typed event; `data` is complete."""
    if kind == "blob":
        return Blob(seq, name, data)
    if kind == "outcome":
        return Finished(seq, msgspec.json.decode(data, type=wire.Outcome))
    text = data.decode("utf-8", "replace")
    if kind == "log":
        return Log(seq, name, text)
    if kind == "message":
        return Message(seq, text)
    return Stdout(seq, text) if kind == "stdout" else Stderr(seq, text)
