"""The numbered events of one instance, kept until its client has acknowledged them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from pie_daemon.host.context import EventKind
from pie_daemon.scheduler.telling import Wake

Hear = Callable[[], Wake | None]
"""Told of an append. What it returns wakes whoever reads; it may be called a little later."""

_OVERHEAD_BYTES = 64
"""Charged per event beside its data, so that a flood of empty messages is bounded as well."""


class Event(NamedTuple):
    seq: int
    """From 1, without gaps."""
    kind: EventKind
    name: str
    """A blob's name, a log line's level, empty otherwise."""
    data: bytes
    """UTF-8 text; raw bytes of a blob; JSON of an outcome."""

    @property
    def size_bytes(self) -> int:
        return len(self.data) + len(self.name) + _OVERHEAD_BYTES


class EventLog:
    """Events in [acked+1, last_seq]. Never blocks: writers look at `unacked_bytes` and wait.

    Callbacks run on the appending (`subscribe`) or acknowledging (`on_ack`) thread, outside the
    lock; they must be cheap and must not raise.
    """

    def __init__(
        self, on_ack: Callable[[], None] = lambda: None, max_kept_bytes: int | None = None
    ) -> None:
        """With `max_kept_bytes` nobody has to acknowledge: the oldest events make way."""
        self._max_kept_bytes = max_kept_bytes
        self._lock = threading.Lock()
        self._events: deque[Event] = deque()
        self._callbacks: list[Hear] = []
        self._on_ack = on_ack
        self._last_seq = 0
        self._unacked_bytes = 0

    @property
    def last_seq(self) -> int:
        return self._last_seq

    @property
    def unacked_bytes(self) -> int:
        return self._unacked_bytes

    def append(self, kind: EventKind, data: bytes, name: str = "") -> int:
        seq, wakes = self._add(kind, data, name)
        for wake in wakes:
            wake()
        return seq

    def put(self, kind: EventKind, data: bytes, name: str = "") -> list[Wake]:
        """Like `append`, but that readers are woken is left to the caller, soon."""
        return self._add(kind, data, name)[1]

    def _add(self, kind: EventKind, data: bytes, name: str) -> tuple[int, list[Wake]]:
        with self._lock:
            self._last_seq += 1
            event = Event(self._last_seq, kind, name, data)
            self._events.append(event)
            self._unacked_bytes += event.size_bytes
            self._make_way()
            callbacks = tuple(self._callbacks)
        return event.seq, [wake for hear in callbacks if (wake := hear()) is not None]

    def _make_way(self) -> None:
        if self._max_kept_bytes is None:
            return
        while len(self._events) > 1 and self._unacked_bytes > self._max_kept_bytes:
            self._unacked_bytes -= self._events.popleft().size_bytes

    def read(self, after: int, max_bytes: int) -> list[Event]:
        """Events behind `after` that are still kept; at least one if there is any."""
        with self._lock:
            if not self._events or after >= self._last_seq:
                return []
            first = max(0, after + 1 - self._events[0].seq)
            return self._take(first, max_bytes)

    def _take(self, first: int, max_bytes: int) -> list[Event]:
        taken: list[Event] = []
        size = 0
        for index in range(first, len(self._events)):
            event = self._events[index]
            size += event.size_bytes
            if taken and size > max_bytes:
                break
            taken.append(event)
        return taken

    def ack(self, upto: int) -> None:
        """Drops events [.., upto]; acknowledging twice or ahead of the last one is harmless."""
        with self._lock:
            while self._events and self._events[0].seq <= upto:
                self._unacked_bytes -= self._events.popleft().size_bytes
        self._on_ack()

    def subscribe(self, callback: Hear) -> Callable[[], None]:
        """Calls back on every append until the returned function is called."""
        with self._lock:
            self._callbacks.append(callback)

        def unsubscribe() -> None:
            with self._lock:
                if callback in self._callbacks:
                    self._callbacks.remove(callback)

        return unsubscribe
