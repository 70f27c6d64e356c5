"""Makes the masks of constrained generations between two batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

from pie_daemon.errors import PieError
from pie_daemon.scheduler.guide import Guide

NUM_THREADS = 2


class MaskMaker:
    """Masks take microseconds, and are made at once. One whose last mask was slow is left to other
    threads: only its own generation waits for it, and joins a later batch."""

    def __init__(self, name: str, wake: Callable[[], None]) -> None:
        """`wake` is called from another thread when a slow mask is there."""
        self._name = name
        self._wake = wake
        self._making: set[Guide] = set()

    def make(self, guides: Iterable[Guide]) -> None:
        """All but the slow ones are made when it returns."""
        for guide in guides:
            if guide in self._making:
                continue
            if guide.is_slow and guide.is_due:
                self._making.add(guide)
                self._pool.submit(self._make_slowly, guide)
            else:
                guide.make()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _make_slowly(self, guide: Guide) -> None:
        try:
            guide.make()
        except Exception as error:  # noqa: BLE001 - the thread's edge: its program must not hang
            guide.error = PieError("internal", f"a mask could not be made: {error}")
        finally:
            self._making.discard(guide)
            self._wake()

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(NUM_THREADS, f"masks-{self._name}")
