"""What a client has sent to an instance and the program has not received yet."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from pie_daemon.errors import PieError

Message = tuple[str, str] | tuple[str, tuple[str, bytes]]
"""The WIT variant `session.message`: ("text", text) or ("blob", (name, data))."""


class Inbox:
    """Bounded in bytes; whoever would overfill it gets the error, and nothing is dropped."""

    def __init__(self, max_bytes: int, wake: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._messages: deque[tuple[Message, int]] = deque()
        self._max_bytes = max_bytes
        self._bytes = 0
        self._closed = False
        self._wake = wake

    def put_text(self, text: str) -> None:
        self._put(("text", text), len(text.encode()))

    def put_blob(self, name: str, data: bytes) -> None:
        self._put(("blob", (name, data)), len(data) + len(name))

    def _put(self, message: Message, size_bytes: int) -> None:
        with self._lock:
            if self._closed:
                raise PieError("closed", "the program's input is closed; it takes no more messages")
            if self._bytes + size_bytes > self._max_bytes:
                raise PieError(
                    "exhausted",
                    f"the program has {self._bytes} unread bytes and a message of {size_bytes} "
                    f"would pass limits.inbox_bytes={self._max_bytes}; "
                    "wait until it has received some",
                )
            self._messages.append((message, size_bytes))
            self._bytes += size_bytes
        self._wake()

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._wake()

    @property
    def ready(self) -> bool:
        """There is a message to take, or there will never be one again."""
        return bool(self._messages) or self._closed

    def take(self) -> Message | None:
        """The oldest message; None once the inbox is closed and empty."""
        with self._lock:
            if not self._messages:
                return None
            message, size_bytes = self._messages.popleft()
            self._bytes -= size_bytes
            return message
