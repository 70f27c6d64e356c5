"""A runtime without wasm for tests of listener and client: programs are Python functions."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from pie_client import wire
from pie_daemon.errors import PieError
from pie_daemon.listener.seams import Wake

Program = Callable[["FakeInstance"], None]


@dataclass(frozen=True)
class FakeEvent:
    seq: int
    kind: str
    name: str
    data: bytes


class FakeEventLog:
    """What the seam asks for, and the largest backlog ever seen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: deque[FakeEvent] = deque()
        self._callbacks: list[Callable[[], Wake | None]] = []
        self.acked = threading.Condition()
        self.last_seq = 0
        self.unacked_bytes = 0
        self.peak_bytes = 0

    @property
    def num_callbacks(self) -> int:
        return len(self._callbacks)

    def append(self, kind: str, data: bytes, name: str = "") -> int:
        for wake in self.put(kind, data, name):
            wake()
        return self.last_seq

    def put(self, kind: str, data: bytes, name: str = "") -> list[Wake]:
        with self._lock:
            self.last_seq += 1
            self._events.append(FakeEvent(self.last_seq, kind, name, data))
            self.unacked_bytes += len(data)
            self.peak_bytes = max(self.peak_bytes, self.unacked_bytes)
            callbacks = list(self._callbacks)
        return [wake for callback in callbacks if (wake := callback()) is not None]

    def read(self, after: int, max_bytes: int) -> list[FakeEvent]:
        taken: list[FakeEvent] = []
        with self._lock:
            for event in self._events:
                if event.seq <= after:
                    continue
                if taken and sum(len(one.data) for one in taken) + len(event.data) > max_bytes:
                    break
                taken.append(event)
        return taken

    def ack(self, upto: int) -> None:
        with self._lock:
            while self._events and self._events[0].seq <= upto:
                self.unacked_bytes -= len(self._events.popleft().data)
        with self.acked:
            self.acked.notify_all()

    def subscribe(self, callback: Callable[[], Wake | None]) -> Wake:
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)


class FakeInstance:
    """Runs its program in a thread, like the real one."""

    def __init__(self, id: str, program: str, input: str, username: str, body: Program) -> None:
        self.id = id
        self.program = program
        self.digest = "d" * 64
        self.input = input
        self.username = username
        self.budgets: Any = None
        self.events = FakeEventLog()
        self.received: list[str] = []
        self.blobs: list[tuple[str, bytes]] = []
        self.input_closed = threading.Event()
        self.stopped = threading.Event()
        self.stop_reason: str | None = None
        self.outcome: wire.Outcome | None = None
        self._body = body
        self._thread = threading.Thread(target=self._main, daemon=True)

    @property
    def done(self) -> bool:
        return self.outcome is not None

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join(10)

    def send(self, text: str, limit_bytes: int = 1 << 30) -> None:
        """Like `session.send`: blocks while too much is unacknowledged."""
        while self.events.unacked_bytes >= limit_bytes and not self.stopped.is_set():
            with self.events.acked:
                self.events.acked.wait(0.05)
        self.events.append("message", text.encode())

    def finish(self, outcome: wire.Outcome) -> None:
        self.outcome = outcome
        self.events.append("outcome", msgspec.json.encode(outcome))

    def info(self) -> wire.InstanceInfo:
        return wire.InstanceInfo(
            id=self.id,
            program=self.program,
            digest=self.digest,
            username=self.username,
            state="finished" if self.done else "running",
            started_at=1.0,
            outcome=self.outcome,
        )

    def deliver(self, text: str) -> None:
        self.received.append(text)

    def deliver_blob(self, name: str, data: bytes) -> None:
        self.blobs.append((name, data))

    def close_input(self) -> None:
        self.input_closed.set()

    def cancel(self, reason: str) -> None:
        self.stop_reason = self.stop_reason or reason
        self.stopped.set()

    def _main(self) -> None:
        self._body(self)
        if not self.done and self.stopped.is_set():
            self.finish(wire.Outcome(status="cancelled", code="cancelled", message="stopped"))


def echo(instance: FakeInstance) -> None:
    """Sends its input as one message and returns it."""
    instance.send(instance.input)
    instance.finish(wire.Outcome(status="ok", result=instance.input))


def wait(instance: FakeInstance) -> None:
    """Runs until it is stopped."""
    instance.stopped.wait(30)


def fail(instance: FakeInstance) -> None:
    """Ends with an error."""
    instance.finish(wire.Outcome(status="error", code="invalid-argument", message="no prompt"))


@dataclass
class FakeSupervisor:
    programs: dict[str, Program]
    all: dict[str, FakeInstance] = field(default_factory=dict)

    def launch(self, program: str, input: str, username: str, budgets: Any) -> FakeInstance:
        if program not in self.programs:
            raise PieError("not-found", f"no program {program}")
        if program == "bug":
            raise ZeroDivisionError("a bug in the supervisor")
        body = self.programs[program]
        instance = FakeInstance(f"i{len(self.all) + 1}", program, input, username, body)
        instance.budgets = budgets
        self.all[instance.id] = instance
        instance.start()
        return instance

    def get(self, id: str) -> FakeInstance:
        if id not in self.all:
            raise PieError("not-found", f"no instance {id}")
        return self.all[id]

    def instances(self) -> Sequence[Any]:
        return [instance.info() for instance in self.all.values()]

    def terminate(self, id: str, reason: str) -> None:
        self.get(id).cancel(reason)

    def close(self) -> None:
        for instance in self.all.values():
            instance.cancel("the test is over")
            instance.join()


@dataclass
class FakeProgramStore:
    """Keeps what was installed; content that starts with `bad` is refused."""

    installed: dict[tuple[str, str], bytes] = field(default_factory=dict)
    threads: set[str] = field(default_factory=set)

    def install(self, path: Path, namespace: str, name: str | None = None) -> wire.ProgramInfo:
        self.threads.add(threading.current_thread().name)
        data = path.read_bytes()
        if data.startswith(b"bad"):
            raise PieError("invalid-argument", f"{path.name} is not a component")
        chosen = name or path.stem
        self.installed[namespace, chosen] = data
        return self._info(namespace, chosen)

    def programs(self, username: str | None) -> list[wire.ProgramInfo]:
        return [
            self._info(namespace, name)
            for namespace, name in self.installed
            if username is None or namespace in ("system", username)
        ]

    def _info(self, namespace: str, name: str) -> wire.ProgramInfo:
        data = self.installed[namespace, name]
        return wire.ProgramInfo(name=name, namespace=namespace, state="ready", size_bytes=len(data))


async def until(condition: Callable[[], bool], deadline_s: float = 10.0) -> None:
    """Waits for something that other threads or tasks bring about."""
    end_s = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end_s, "it did not happen in time"
        await asyncio.sleep(0.002)
