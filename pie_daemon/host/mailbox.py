"""The one place where an instance's thread waits, and the one way to end that wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue

from pie_daemon.host.stop import Reason, Stopped
from pie_daemon.host.ticker import Ticker
from pie_daemon.host.turns import TURNS

# A wait longer than this is split, because the C implementation refuses very long ones.
_LONGEST_WAIT_S = 86_400.0


class Mailbox:
    """Wakes one instance thread. `wait` and `check` belong to it; all else to any thread."""

    def __init__(self, deadline_s: float | None = None) -> None:
        """`deadline_s` is a point on `time.monotonic`'s axis."""
        self.deadline_s = deadline_s
        self._queue: SimpleQueue[None] = SimpleQueue()
        self._go = partial(self._queue.put, None)
        self._woken = False
        self._stop: Stopped | None = None
        self.ticker: Ticker | None = None
        """That the thread has entered, and which it leaves while it waits."""

    def wake(self) -> None:
        """Makes the waiting thread look again. Wakes before it looks are one wake."""
        if not self._woken:
            self._woken = True
            TURNS.ask(self._go)

    def leave(self) -> None:
        """The thread does not wait here any more."""
        self._woken = True  # nobody is to be woken
        TURNS.leave(self._go)

    @property
    def num_pending(self) -> int:
        """Wakes that the thread has not taken yet."""
        return self._queue.qsize()

    def stop(self, reason: Reason, message: str) -> None:
        """Ends the instance at its next wait or epoch tick; the first reason stays."""
        if self._stop is None:
            self._stop = Stopped(reason, message)
        self.wake()

    @property
    def stopped(self) -> Stopped | None:
        """The stop that was asked for, or the deadline when it has passed."""
        if self._stop is None and self.deadline_s is not None:
            late_s = time.monotonic() - self.deadline_s
            if late_s >= 0:
                self._stop = Stopped("deadline", "the deadline of the launch has passed")
        return self._stop

    def check(self) -> None:
        if (stop := self.stopped) is not None:
            raise Stopped(stop.reason, stop.message)

    def wait(self, ready: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Blocks until `ready()`, or False after `timeout_s`. Raises `Stopped` when stopped.

        Whoever makes `ready` true calls `wake` afterwards.
        """
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self.check()
            if ready():
                return True
            if until_s is not None and time.monotonic() >= until_s:
                return False
            self._sleep(until_s)

    def _sleep(self, until_s: float | None) -> None:
        ends = [end for end in (until_s, self.deadline_s) if end is not None]
        remaining_s = min(ends) - time.monotonic() if ends else _LONGEST_WAIT_S
        TURNS.end(self._go)
        ticker = self.ticker
        if ticker is not None:
            ticker.leave()
        try:
            self._queue.get(timeout=max(0.0, min(remaining_s, _LONGEST_WAIT_S)))
        except Empty:
            return
        finally:
            if ticker is not None:
                ticker.enter()
        # After taking the token and before `ready` is asked again: a wake in between is not lost,
        # because what it announced is already true.
        self._woken = False
