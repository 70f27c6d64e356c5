"""What the listener needs from the layers below; the runtime fits structurally."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pie_client.wire import Budgets

Wake = Callable[[], None]


class Event(Protocol):
    @property
    def seq(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def data(self) -> bytes: ...


class EventLog(Protocol):
    @property
    def last_seq(self) -> int: ...
    def read(self, after: int, max_bytes: int, /) -> Sequence[Event]:
        """Events with seq > after; at least one when there is one, however large."""

    def ack(self, upto: int, /) -> None: ...
    def subscribe(self, callback: Callable[[], Wake | None], /) -> Wake:
        """Calls back on every append; what that returns is called soon after."""


class Instance(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def program(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def username(self) -> str: ...
    @property
    def events(self) -> EventLog: ...
    @property
    def done(self) -> bool: ...
    def info(self) -> Any:
        """Anything with the attributes of `pie_client.wire.InstanceInfo`."""

    def deliver(self, text: str, /) -> None: ...
    def deliver_blob(self, name: str, data: bytes, /) -> None: ...
    def close_input(self) -> None: ...


class Supervisor(Protocol):
    def launch(self, program: str, input: str, username: str, budgets: Any, /) -> Instance: ...
    def get(self, id: str, /) -> Instance: ...
    def instances(self) -> Sequence[Any]: ...
    def terminate(self, id: str, reason: str, /) -> None: ...


class ProgramStore(Protocol):
    def install(self, path: Path, namespace: str, name: str | None, /) -> Any: ...
    def programs(self, username: str | None, /) -> Sequence[Any]: ...


@dataclass(frozen=True)
class Services:
    """What the commands act upon."""

    supervisor: Supervisor
    programs: ProgramStore
    make_budgets: Callable[[Budgets], Any]
    """Wire budgets to those of the runtime."""
    max_program_bytes: Callable[[], int]
    """The largest program that may be uploaded, as configured right now."""
    detail: Callable[[], Mapping[str, Any]]
    """What `status` tells beyond the listener's own numbers; plain data."""
