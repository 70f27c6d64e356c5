"""Waiting on several things at once: generations, children, the client, timers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from inferlet import _host


class Waitable:
    """Ready while its source has something to take or has ended."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle

    def ready(self) -> bool:
        return bool(self.handle.ready())

    def waitable(self) -> Waitable:
        return self


class CanWait(Protocol):
    def waitable(self) -> Waitable: ...


T = TypeVar("T", bound=CanWait)


def wait_any(items: Sequence[T], timeout_s: float | None = None) -> list[T]:
    """Blocks until at least one item is ready; returns the ready ones in their order.

    Empty when `timeout_s` passed first.
    """
    handles = [item.waitable().handle for item in items]
    timeout_ms = None if timeout_s is None else _milliseconds(timeout_s)
    return [items[i] for i in _host.call(_host.events.wait_any, handles, timeout_ms)]


def timer(duration_s: float) -> Waitable:
    """Ready once `duration_s` has passed."""
    return Waitable(_host.call(_host.events.timer, _milliseconds(duration_s)))


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))
