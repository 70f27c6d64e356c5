"""Why a running program is ended from outside, and the meter of its CPU time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Literal

Reason = Literal["cancelled", "cpu", "memory", "deadline", "shutdown"]


class Stopped(BaseException):
    """Unwinds a host call of a program that is being ended.

    Not an `Exception`, so that no handler inside a host function mistakes it for a failure.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.message = message


class CpuMeter:
    """CPU seconds of one thread against a grant, and against those of whoever launched it.

    Only that thread may start or charge it; children charge their ancestors from theirs.
    """

    def __init__(self, grant_s: float | None = None, parent: CpuMeter | None = None) -> None:
        self.grant_s = grant_s
        self.used_s = 0.0
        self._parent = parent
        self._lock = threading.Lock()
        self._family_s = 0.0  # with what its children have used
        self._start_s = 0.0

    def start(self) -> None:
        self._start_s = time.thread_time()

    def charge(self) -> None:
        used_s = time.thread_time() - self._start_s
        grown_s, self.used_s = used_s - self.used_s, used_s
        for meter in self._chain():
            meter._add(grown_s)

    def exceeded(self) -> Stopped | None:
        for meter in self._chain():
            if meter.grant_s is not None and meter._family_s > meter.grant_s:
                return Stopped("cpu", self._told(meter))
        return None

    def left_s(self) -> float | None:
        """None without a limit."""
        left = [m.grant_s - m._family_s for m in self._chain() if m.grant_s is not None]
        return max(0.0, min(left)) if left else None

    def _add(self, grown_s: float) -> None:
        with self._lock:
            self._family_s += grown_s

    def _chain(self) -> Iterator[CpuMeter]:
        meter: CpuMeter | None = self
        while meter is not None:
            yield meter
            meter = meter._parent

    def _told(self, meter: CpuMeter) -> str:
        alone = meter is self and self._family_s <= self.used_s
        shared = "" if alone else ", shared by a program and what it launches"
        return f"used {meter._family_s:.2f} s of CPU time; the grant is {meter.grant_s:g} s{shared}"
