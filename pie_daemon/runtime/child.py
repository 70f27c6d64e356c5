"""A launched instance as its parent sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from pie_daemon.errors import Code, PieError
from pie_daemon.runtime.instance import Instance


class Child:
    """`wake` is called once it has ended."""

    def __init__(self, instance: Instance, wake: Callable[[], None]) -> None:
        self._instance = instance
        self._wake = wake
        self._unsubscribe = instance.events.subscribe(self._on_event)

    @property
    def id(self) -> str:
        return self._instance.id

    def outcome(self) -> tuple[str, str | PieError] | None:
        outcome = self._instance.outcome
        if outcome is None:
            return None
        if outcome.result is not None:
            return "ok", outcome.result
        # `program-error` and `trap` are codes of outcomes only.
        code = cast(Code, outcome.code or "internal")
        return "err", PieError(code, outcome.message or outcome.status)

    def cancel(self) -> None:
        self._instance.cancel("cancelled by the program that launched it")

    def let_go(self, cancel: bool) -> None:
        self._unsubscribe()
        if cancel:
            self._instance.cancel("the program that launched it has ended")

    def _on_event(self) -> None:
        if self._instance.done:
            self._wake()
