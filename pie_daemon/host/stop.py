"""Why a running program is ended from outside, and the meter of its CPU time."""

from __future__ import annotations

import time
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
    """CPU seconds of one thread against a grant. Only that thread may start or charge it."""

    def __init__(self, grant_s: float | None = None) -> None:
        self.grant_s = grant_s
        self.used_s = 0.0
        self._start_s = 0.0

    def start(self) -> None:
        self._start_s = time.thread_time()

    def charge(self) -> None:
        self.used_s = time.thread_time() - self._start_s

    def exceeded(self) -> Stopped | None:
        if self.grant_s is None or self.used_s <= self.grant_s:
            return None
        return Stopped(
            "cpu", f"used {self.used_s:.2f} s of CPU time; the grant is {self.grant_s:g} s"
        )
