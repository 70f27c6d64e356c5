"""What a program can ask of the world outside: answers that come in later, from another thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)


class Job(Protocol[T_co]):
    """Something on its way. `close` cancels it or gives up its result."""

    @property
    def done(self) -> bool: ...

    def result(self) -> T_co:
        """Once it is done; raises the PieError that it ended with."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class WebRequest:
    method: str
    url: str
    headers: list[tuple[str, str]]
    body: bytes
    timeout_s: float | None
    """None leaves it to the operator's limit."""


@dataclass(frozen=True, slots=True)
class WebResponse:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Web(Protocol):
    """HTTP as far as this instance has been granted it."""

    def fetch(self, request: WebRequest, notify: Callable[[], None]) -> Job[WebResponse]:
        """Never blocks; `notify` is called from another thread once it is done."""
        ...


class Tools(Protocol):
    """The tools that this instance has been granted. Results are MCP JSON."""

    def servers(self) -> list[str]: ...

    def list_tools(self, server: str, notify: Callable[[], None]) -> Job[str]: ...

    def call(
        self, server: str, name: str, arguments: str, notify: Callable[[], None]
    ) -> Job[str]: ...
