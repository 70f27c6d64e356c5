"""Things a program can wait for, alone or several at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pie_daemon.host.mailbox import Mailbox


class Waitable:
    """Ready while its source has an item to take or has ended."""

    def __init__(self, is_ready: Callable[[], bool], deadline: float | None = None) -> None:
        self._is_ready = is_ready
        self.deadline = deadline
        """When it becomes ready by the clock alone, in `time.monotonic()` seconds."""

    def ready(self) -> bool:
        return self._is_ready()


def timer(duration_s: float) -> Waitable:
    deadline = time.monotonic() + duration_s
    return Waitable(lambda: time.monotonic() >= deadline, deadline)


def wait_any(mailbox: Mailbox, items: Sequence[Waitable], timeout_s: float | None) -> list[int]:
    """Blocks the instance until one is ready or the timeout has passed; indices of the ready."""
    end = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        ready = [index for index, item in enumerate(items) if item.ready()]
        now = time.monotonic()
        if ready or (end is not None and now >= end):
            return ready
        deadlines = [item.deadline for item in items if item.deadline is not None]
        if end is not None:
            deadlines.append(end)
        pause_s = max(0.0, min(deadlines) - now) if deadlines else None
        mailbox.wait(lambda: any(item.ready() for item in items), pause_s)
