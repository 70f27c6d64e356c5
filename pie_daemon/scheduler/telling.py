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
    """Belongs to the scheduler's thread, but for `stop`."""

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[list[Later] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._main, name=f"teller-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """After everything that was left to it."""
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def tell(self, callbacks: Iterable[Notify]) -> None:
        later = [one for notify in callbacks if (one := notify()) is not None]
        if later:
            self._queue.put(later)

    def _main(self) -> None:
        while (later := self._queue.get()) is not None:
            wakes: list[Wake] = []
            for one in later:
                try:
                    wakes.extend(one())
                except Exception:  # noqa: BLE001 - the others are to be served
                    _log.exception("what a program was to be told failed")
            for wake in wakes:
                wake()
