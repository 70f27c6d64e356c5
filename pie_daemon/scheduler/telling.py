"""Tells programs that there is something to take; what takes longer is done beside the next batch.

What a program is told at once keeps the next batch waiting. So whoever has more to do than to wake
a thread leaves that to a thread of the scheduler's own, which finds the interpreter free when the
batch is on its way.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue

_log = logging.getLogger(__name__)

Wake = Callable[[], None]

Later = Callable[[], Sequence[Wake]]
"""What it returns is called once all others were done, so that who is woken finds all of it."""

Notify = Callable[[], Later | None]
"""Says that a request has something to take. It must be quick; the rest it returns."""


class Teller:
    """Belongs to the scheduler's thread, but for `stop`. What is left to do waits once, however
    often it is asked for meanwhile."""

    def __init__(self, name: str) -> None:
        self._lock = threading.Lock()
        self._left: dict[Later, None] = {}
        self._goes_on: SimpleQueue[bool] = SimpleQueue()
        self._thread = threading.Thread(target=self._main, name=f"teller-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """After everything that was left to it."""
        self._goes_on.put(False)
        if self._thread.is_alive():
            self._thread.join()

    def tell(self, callbacks: Iterable[Notify]) -> None:
        later = [one for notify in callbacks if (one := notify()) is not None]
        if not later:
            return
        with self._lock:
            is_first = not self._left
            self._left.update(dict.fromkeys(later))
        if is_first:
            self._goes_on.put(True)

    def _main(self) -> None:
        while self._goes_on.get():
            with self._lock:
                later, self._left = self._left, {}
            _do(later)


def _do(later: Iterable[Later]) -> None:
    wakes: list[Wake] = []
    for one in later:
        try:
            wakes.extend(one())
        except Exception:  # noqa: BLE001 - the others are to be served
            _log.exception("what a program was to be told failed")
    for wake in wakes:
        wake()
