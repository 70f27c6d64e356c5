"""The one place that starts asyncio tasks: named, owned, and loud at once when they fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

_log = structlog.get_logger()


class Tasks:
    """The tasks of one owner. `close` cancels what still runs and waits for its end."""

    def __init__(self, owner: str, on_failure: Callable[[BaseException], None] | None = None):
        self._owner = owner
        self._on_failure = on_failure
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Starts it; a failure is logged with its traceback when it happens, not when awaited."""
        full_name = f"{self._owner}.{name}"
        task = asyncio.get_running_loop().create_task(
            self._guard(coroutine, full_name), name=full_name
        )
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        # A task cancelled before its first step leaves the coroutine unstarted: end it quietly.
        task.add_done_callback(lambda _: coroutine.close())
        return task

    async def close(self) -> None:
        """Safe to call twice, and from one of the tasks itself."""
        current = asyncio.current_task()
        while others := [task for task in self._running if task is not current]:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    async def _guard(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        try:
            await coroutine
        except Exception as error:  # noqa: BLE001 - the task edge: nobody else will see it
            _log.error("task failed", task=name, exc_info=True)
            if self._on_failure is not None:
                self._on_failure(error)
