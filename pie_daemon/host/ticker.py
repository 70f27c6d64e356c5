"""Looks at programs that compute, every few milliseconds; rests while all of them wait.

A tick takes a tenth of a millisecond of a core, which the engine's threads then wait for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

TICK_S = 0.01
KEEP_S = 10.0
"""The thread stays for so long after it has had nothing to do."""


class Ticker:
    """Thread-safe. A program that computes is between `enter` and `leave`."""

    def __init__(self, tick: Callable[[], None], keep_s: float = KEEP_S) -> None:
        """`tick` is called by a thread of the ticker's own."""
        self._tick = tick
        self._keep_s = keep_s
        self._lock = threading.Lock()
        self._num_computing = 0
        self._thread: threading.Thread | None = None
        self._rests = False
        self._wakes: SimpleQueue[None] = SimpleQueue()

    def enter(self) -> None:
        with self._lock:
            self._num_computing += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._main, name="pie-epoch", daemon=True)
                self._thread.start()
            elif self._rests:
                self._rests = False
                self._wakes.put(None)

    def leave(self) -> None:
        with self._lock:
            self._num_computing -= 1

    def _main(self) -> None:
        while True:
            time.sleep(TICK_S)
            with self._lock:
                self._rests = not self._num_computing
            if not self._rests:
                self._tick()
            elif not self._rested():
                return

    def _rested(self) -> bool:
        """Returns when somebody computes; False: nobody has for a while, and the thread ends."""
        try:
            self._wakes.get(timeout=self._keep_s)
        except Empty:
            with self._lock:
                if self._rests:
                    self._thread, self._rests = None, False
                    return False
            self._wakes.get()
        return True
