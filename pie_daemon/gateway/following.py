"""The programs of one request: started together, followed without polling, ended together."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from pie_daemon.errors import PieError
from pie_daemon.gateway.catalogue import Target
from pie_daemon.gateway.contract import End, Part, Reader
from pie_daemon.gateway.errors import ApiError, refused
from pie_daemon.gateway.request import Ask
from pie_daemon.runtime.instance import Instance
from pie_daemon.runtime.outcome import Budgets
from pie_daemon.scheduler.telling import Wake

_READ_BYTES = 64 << 10
"""Of each program between two turns of the loop; what is more waits in its log."""


class Launcher(Protocol):
    """What of the supervisor is needed."""

    def launch(
        self, program: str, program_input: str, username: str, budgets: Budgets | None, /
    ) -> Instance: ...


class ClientGone(Exception):
    """Nobody is left to answer."""


@dataclass
class _Run:
    instance: Instance
    reader: Reader
    seen: int = 0
    ended: bool = False
    unsubscribe: Callable[[], None] = field(default=lambda: None)


class Group:
    """Only the loop's thread may use it; the instances' threads only wake it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._lock = threading.Lock()
        self._pending = False
        self._gone = False
        self._failure: ApiError | None = None
        self._runs: list[_Run] = []

    @property
    def ids(self) -> list[str]:
        return [run.instance.id for run in self._runs]

    @property
    def ended(self) -> bool:
        return all(run.ended for run in self._runs)

    def start(
        self, launcher: Launcher, ask: Ask, target: Target, username: str, limits: Limits
    ) -> None:
        """ApiError when one cannot be started; `close` ends the others."""
        budgets = Budgets(deadline_s=limits.deadline_s)
        for index in range(ask.num_choices):
            given = json.dumps({**target.defaults, **ask.input(index)})
            try:
                instance = launcher.launch(target.program, given, username, budgets)
            except PieError as error:
                raise refused(error) from None
            run = _Run(instance, Reader(target.program, limits.answer_bytes))
            run.unsubscribe = instance.events.subscribe(self._mark_from_any_thread)
            self._runs.append(run)
        self._woken.set()

    async def next(self, timeout_s: float) -> list[tuple[int, Part]]:
        """What the programs have said since, as (choice, part); empty after a silence.

        Raises:
            ApiError: one of them has failed; what it said before was returned.
            ClientGone: `leave` was called.
        """
        while True:
            if self._failure is not None:
                raise self._failure
            self._sleep()
            parts = [part for index in range(len(self._runs)) for part in self._read(index)]
            if self._gone:
                raise ClientGone
            if parts or self.ended:
                return parts
            if self._failure is not None:
                continue
            try:
                async with asyncio.timeout(timeout_s):
                    await self._woken.wait()
            except TimeoutError:
                return []

    def ack(self) -> None:
        """What `next` has returned is on its way: the programs may say more."""
        for run in self._runs:
            if run.instance.events.unacked_bytes:
                run.instance.events.ack(run.seen)

    def leave(self) -> None:
        """The client is gone."""
        self._gone = True
        self._woken.set()

    def close(self, reason: str) -> None:
        """Ends whatever still runs; its contexts and pages go with it."""
        for run in self._runs:
            run.unsubscribe()
            if not run.ended:
                run.instance.cancel(reason)
            run.instance.events.ack(run.instance.events.last_seq)

    def _read(self, index: int) -> list[tuple[int, Part]]:
        run = self._runs[index]
        parts: list[tuple[int, Part]] = []
        for event in run.instance.events.read(run.seen, _READ_BYTES):
            run.seen = event.seq
            try:
                part = run.reader.read(event)
            except ApiError as error:
                self._failure = self._failure or error
                break
            run.ended = run.ended or isinstance(part, End)
            if part is not None:
                parts.append((index, part))
        if run.seen and not parts:
            run.instance.events.ack(run.seen)  # what is no part of the answer holds nobody up
        return parts

    def _sleep(self) -> None:
        with self._lock:
            self._pending = False
        if not self._gone:
            self._woken.clear()

    def _mark_from_any_thread(self) -> Wake | None:
        with self._lock:
            is_first, self._pending = not self._pending, True
        return self._wake if is_first else None

    def _wake(self) -> None:
        # The loop may have ended before the last program did.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._woken.set)


@dataclass(frozen=True)
class Limits:
    deadline_s: float
    answer_bytes: int
