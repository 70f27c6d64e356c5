"""Events of instances on their way to clients: a cursor and a window per (client, instance).

The event log keeps the data; here are only numbers. A client that acknowledges slowly leaves its
events in the log, and the program blocks in `session.send` once the log is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable

from pie_client import wire
from pie_daemon.errors import PieError
from pie_daemon.listener.seams import Event, Instance, Wake
from pie_daemon.listener.session import Session

_PAUSE_S = 0.002
"""Between two looks at what programs have said: those that one batch has answered speak one after
the other, and what they say travels together. The first of them is not held up."""


class Follower:
    """One client that follows one instance.

    Sent and not acknowledged: events in (acked, sent]; they are at most one event over the window.
    """

    def __init__(self, session: Session, instance: Instance, after: int, window_bytes: int) -> None:
        self.session = session
        self.instance = instance
        self.acked = after
        self.sent = after
        self.finished = False
        self._window_bytes = window_bytes
        self._unacked: deque[tuple[int, int]] = deque()
        self._unacked_bytes = 0
        self._outcome_seq: int | None = None

    def pump(self) -> None:
        """Sends what the window and the client's queue allow."""
        log = self.instance.events
        while self.sent < log.last_seq and self.session.open and not self.session.blocked:
            room_bytes = self._window_bytes - self._unacked_bytes
            if room_bytes <= 0:
                return
            events = log.read(self.sent, room_bytes)
            if not events:
                return
            for event in events:
                self._send(event)

    def ack(self, upto: int) -> None:
        if upto > self.sent:
            raise PieError(
                "invalid-argument", f"event {upto} was not sent yet; the last one is {self.sent}"
            )
        self.acked = max(self.acked, upto)
        while self._unacked and self._unacked[0][0] <= upto:
            self._unacked_bytes -= self._unacked.popleft()[1]
        if self._outcome_seq is not None and upto >= self._outcome_seq:
            self.finished = True

    def _send(self, event: Event) -> None:
        for message in split_event(self.instance.id, event, self.session.chunk_bytes):
            self.session.event(message)
        # An empty event costs the client memory too.
        cost_bytes = len(event.data) + 64
        self._unacked.append((event.seq, cost_bytes))
        self._unacked_bytes += cost_bytes
        self.sent = event.seq
        if event.kind == "outcome":
            self._outcome_seq = event.seq


def split_event(instance: str, event: Event, chunk_bytes: int) -> Iterable[wire.Event]:
    """The messages that carry one event; more than one when it is larger than a chunk."""
    size = len(event.data)
    for offset in range(0, max(size, 1), chunk_bytes):
        yield wire.Event(
            instance=instance,
            seq=event.seq,
            kind=event.kind,  # type: ignore[arg-type]  # the log knows no other kinds
            name=event.name,
            data=event.data[offset : offset + chunk_bytes],
            offset=offset,
            size=size if size > chunk_bytes else None,
        )


class Following:
    """All followers. Event logs call from other threads; everything else runs in the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._by_instance: dict[str, dict[Session, Follower]] = {}
        self._by_session: dict[Session, set[str]] = {}
        self._unsubscribe: dict[str, Callable[[], None]] = {}
        self._lock = threading.Lock()
        self._dirty: set[str] = set()
        self._pumped_s = float("-inf")

    def attach(self, session: Session, instance: Instance, after: int, window_bytes: int) -> None:
        """From the next turn of the loop on, so that the answer to the request goes out first."""
        followers = self._by_instance.setdefault(instance.id, {})
        followers[session] = Follower(session, instance, after, window_bytes)
        self._by_session.setdefault(session, set()).add(instance.id)
        if instance.id not in self._unsubscribe:
            self._unsubscribe[instance.id] = instance.events.subscribe(
                lambda: self._mark_from_any_thread(instance.id)
            )
        self._settle(instance.id)
        if (wake := self._mark_from_any_thread(instance.id)) is not None:
            wake()

    def detach(self, session: Session, instance_id: str) -> None:
        if session not in self._by_instance.get(instance_id, {}):
            raise PieError("not-found", f"this client does not follow {instance_id}")
        self._remove(session, instance_id)

    def forget(self, session: Session) -> list[str]:
        """The client is gone; the instances that it followed."""
        followed = sorted(self._by_session.get(session, ()))
        for instance_id in followed:
            self._remove(session, instance_id)
        return followed

    def ack(self, session: Session, instance_id: str, upto: int) -> bool:
        """True when that was the outcome: the instance has ended and all of it has arrived."""
        follower = self._by_instance.get(instance_id, {}).get(session)
        if follower is None:
            raise PieError("not-found", f"this client does not follow {instance_id}")
        follower.ack(upto)
        self._settle(instance_id)
        if follower.finished:
            self._remove(session, instance_id)
        else:
            follower.pump()
        return follower.finished

    def pump_session(self, session: Session) -> None:
        """The client takes messages again."""
        for instance_id in tuple(self._by_session.get(session, ())):
            self._by_instance[instance_id][session].pump()

    def followers(self, instance_id: str) -> list[Session]:
        return list(self._by_instance.get(instance_id, ()))

    def _settle(self, instance_id: str) -> None:
        """The log may forget what every follower has; a slow one slows the program."""
        followers = self._by_instance[instance_id].values()
        log = next(iter(followers)).instance.events
        if (upto := min(follower.acked for follower in followers)) > 0:
            log.ack(upto)

    def _remove(self, session: Session, instance_id: str) -> None:
        followers = self._by_instance[instance_id]
        del followers[session]
        self._by_session[session].discard(instance_id)
        if not self._by_session[session]:
            del self._by_session[session]
        if followers:
            self._settle(instance_id)
        else:
            del self._by_instance[instance_id]
            self._unsubscribe.pop(instance_id)()

    def _mark_from_any_thread(self, instance_id: str) -> Wake | None:
        """Whoever marks the first one wakes the loop, and may mark others before that."""
        with self._lock:
            is_first = not self._dirty
            self._dirty.add(instance_id)
        return self._wake if is_first else None

    def _wake(self) -> None:
        # The loop may have ended before the last program did.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._pump_soon)

    def _pump_soon(self) -> None:
        wait_s = self._pumped_s + _PAUSE_S - self._loop.time()
        if wait_s > 0:
            self._loop.call_later(wait_s, self._pump_dirty)
        else:
            self._pump_dirty()

    def _pump_dirty(self) -> None:
        self._pumped_s = self._loop.time()
        with self._lock:
            dirty, self._dirty = self._dirty, set()
        for instance_id in dirty:
            for follower in list(self._by_instance.get(instance_id, {}).values()):
                follower.pump()
