"""One running program: its thread, its events, its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec
import structlog

from pie_daemon.errors import PieError
from pie_daemon.host.context import EventKind
from pie_daemon.host.inbox import Inbox
from pie_daemon.host.mailbox import Mailbox
from pie_daemon.runtime.events import EventLog
from pie_daemon.runtime.family import Accounts, Family
from pie_daemon.runtime.grants import Grants
from pie_daemon.runtime.outcome import Outcome, Usage
from pie_daemon.runtime.programs import Program
from pie_daemon.scheduler.telling import Wake

State = Literal["starting", "running", "finished"]
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class InstanceInfo:
    id: str
    program: str
    digest: str
    username: str
    state: State
    started_at: float
    """Unix seconds."""
    cpu_s: float
    tokens: int
    """Generated so far."""
    kv_pages: int
    outcome: Outcome | None


@dataclass(frozen=True, slots=True)
class OutputLimits:
    event_bytes: int
    """Unacknowledged output beyond which the program waits."""
    send_stall_s: float
    """How long it waits before it is told `exhausted`."""
    inbox_bytes: int


class Body(Protocol):
    """What an instance runs, and what that has used so far, wherever it is counted."""

    def run(self, instance: Instance) -> Outcome: ...

    def usage(self) -> Usage: ...

    def kv_pages(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Launch:
    id: str
    program: Program
    username: str
    input: str
    grants: Grants
    accounts: Accounts
    family: Family
    depth: int = 0
    """Launches above this one: 0 for one by a client."""


class Instance:
    """Owns the thread a program runs on. `body` runs the program; whatever it does, the outcome
    becomes the last event and `on_end` is called exactly once."""

    def __init__(
        self,
        launch: Launch,
        limits: OutputLimits,
        body: Body,
        on_end: Callable[[Instance], None],
    ) -> None:
        self.launch = launch
        self._started = time.monotonic()
        deadline_s = launch.grants.deadline_s
        self.mailbox = Mailbox(None if deadline_s is None else self._started + deadline_s)
        # A child has no client: what it says is kept for whoever looks, and never holds it up.
        kept = limits.event_bytes if launch.depth else None
        self.events = EventLog(on_ack=self._on_ack, max_kept_bytes=kept)
        self._waits_for_client = False
        self.inbox = Inbox(limits.inbox_bytes, self.mailbox.wake)
        self._limits = limits
        self._body = body
        self._on_end = on_end
        self._started_at = time.time()
        self._finished = 0.0
        self._state: State = "starting"
        self._outcome: Outcome | None = None
        self._thread = threading.Thread(
            target=self._main, name=f"inferlet-{launch.id}", daemon=True
        )

    @property
    def id(self) -> str:
        return self.launch.id

    @property
    def program(self) -> str:
        return self.launch.program.name

    @property
    def digest(self) -> str:
        return self.launch.program.digest

    @property
    def username(self) -> str:
        return self.launch.username

    @property
    def done(self) -> bool:
        return self._state == "finished"

    @property
    def outcome(self) -> Outcome | None:
        return self._outcome if self.done else None

    @property
    def finished_for_s(self) -> float:
        return time.monotonic() - self._finished if self.done else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds to the launch's deadline; None without one."""
        end = self.mailbox.deadline_s
        return None if end is None else max(0.0, end - time.monotonic())

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Waits for the thread; False when it is still alive afterwards."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def cancel(self, reason: str) -> None:
        """Ends the program wherever it is; harmless once it has ended."""
        self.mailbox.stop("cancelled", reason)

    def deliver(self, text: str) -> None:
        self.inbox.put_text(text)

    def deliver_blob(self, name: str, data: bytes) -> None:
        self.inbox.put_blob(name, data)

    def close_input(self) -> None:
        self.inbox.close()

    def emit(self, kind: EventKind, data: bytes, name: str = "") -> None:
        """One event of the program, on its own thread. Blocks while the client lags behind.

        Raises:
            PieError: exhausted, when the client has not caught up within `send_stall_s`. Output
                that has no way to answer an error (stdout, stderr, log) waits for as long as it
                takes.
        """
        if not self.launch.depth and self.events.unacked_bytes >= self._limits.event_bytes:
            self._wait_for_client(forever=kind not in ("message", "blob"))
        self.events.append(kind, data, name)

    def offer(self, data: bytes) -> list[Wake] | None:
        """One message of the program, from any thread while its own is in a host call. Never
        blocks: None while the client lags behind, else what wakes those who read it."""
        if not self.launch.depth and self.events.unacked_bytes >= self._limits.event_bytes:
            return None
        return self.events.put("message", data)

    def _on_ack(self) -> None:
        # A program that waits for something else need not look.
        if self._waits_for_client:
            self.mailbox.wake()

    def _wait_for_client(self, forever: bool) -> None:
        limits = self._limits
        self._waits_for_client = True
        has_room = self.mailbox.wait(
            lambda: self.events.unacked_bytes < limits.event_bytes,
            None if forever else limits.send_stall_s,
        )
        self._waits_for_client = False
        if not has_room:
            raise PieError(
                "exhausted",
                f"the client has left {self.events.unacked_bytes} bytes of output unacknowledged "
                f"for {limits.send_stall_s:g} s (limits.event_bytes={limits.event_bytes}); "
                "send less, or read events faster",
            )

    def info(self) -> InstanceInfo:
        usage = self._outcome.usage if self._outcome else self._body.usage()
        return InstanceInfo(
            id=self.id,
            program=self.program,
            digest=self.digest,
            username=self.username,
            state=self._state,
            started_at=self._started_at,
            cpu_s=usage.cpu_s,
            tokens=usage.generated_tokens,
            kv_pages=0 if self.done else self._body.kv_pages(),
            outcome=self._outcome,
        )

    def _main(self) -> None:
        self._state = "running"
        try:
            outcome = self._body.run(self)
        except Exception as error:  # noqa: BLE001 -- the edge of a program: its end is reported
            _log.exception("instance_failed", instance=self.id, program=self.program)
            outcome = Outcome(status="trapped", code="internal", message=repr(error))
        self._finish(outcome)
        self.mailbox.leave()

    def _finish(self, outcome: Outcome) -> None:
        usage = msgspec.structs.replace(
            self._body.usage(), wall_s=round(time.monotonic() - self._started, 6)
        )
        self._outcome = msgspec.structs.replace(outcome, usage=usage)
        self._finished = time.monotonic()
        self.inbox.close()
        self._on_end(self)
        self._state = "finished"
        self.events.append("outcome", msgspec.json.encode(self._outcome))
