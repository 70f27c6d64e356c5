"""Lets programs that one batch has answered go on a few at a time.

Woken all at once, their threads take the interpreter from each other at every host call, and each
time costs more than the call. One after the other they do the same work without being disturbed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from pie_daemon.host.mailbox import Mailbox

WIDTH = 2
"""One computes in wasm while another is in a host call."""
PATIENCE_S = 0.01
"""Whoever takes longer makes room for the next, and goes on beside it."""


class Turnstile:
    """A program has its turn from its wake until it waits again, has ended, or takes too long."""

    def __init__(self, width: int = WIDTH, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._width = width
        self._lock = threading.Lock()
        self._since_s: dict[Mailbox, float] = {}
        self._line: dict[Mailbox, None] = {}  # in order

    def wake(self, mailbox: Mailbox) -> None:
        """Now, or when it is its turn."""
        with self._lock:
            if mailbox in self._line:
                return
            if mailbox not in self._since_s:
                self._line[mailbox] = None
                woken = self._let(self._clock())
            else:
                woken = [mailbox]
        self._wake(woken)

    def relieve(self) -> None:
        """Called from time to time: nobody waits for long for one that does not come to rest."""
        if not self._line:
            return
        with self._lock:
            woken = self._let(self._clock())
        self._wake(woken)

    def _leave(self, mailbox: Mailbox) -> None:
        with self._lock:
            self._since_s.pop(mailbox, None)
            woken = self._let(self._clock())
        self._wake(woken)

    def _let(self, now_s: float) -> list[Mailbox]:
        for late in [one for one, since_s in self._since_s.items() if now_s - since_s > PATIENCE_S]:
            del self._since_s[late]
        woken = []
        while self._line and len(self._since_s) < self._width:
            mailbox = next(iter(self._line))
            del self._line[mailbox]
            self._since_s[mailbox] = now_s
            woken.append(mailbox)
        return woken

    def _wake(self, woken: list[Mailbox]) -> None:
        for mailbox in woken:
            mailbox.wake(partial(self._leave, mailbox))
