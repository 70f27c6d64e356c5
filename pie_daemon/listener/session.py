"""One client: what is on its way to it, and whether it is still there."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import structlog

from pie_client.codec import NOTICE, encode
from pie_client.wire import Event, Events, Reply
from pie_daemon.listener.transport import Peer, Sent, Transport

_log = structlog.get_logger()

# What an event takes in a message beside its data and its names.
_EVENT_BYTES = 96


class Session:
    """Exists from hello until bye, silence, or a full outbox.

    Everything runs in the loop's thread. `on_blocked` is called when the peer's queue is full, so
    that somebody calls `flush` later; `on_lost` once, when the client cannot be reached.
    """

    def __init__(
        self,
        transport: Transport,
        route: bytes,
        peer: Peer,
        *,
        on_blocked: Callable[[Session], None],
        on_lost: Callable[[Session, str], None],
    ) -> None:
        self.peer = peer
        self.last_seen_s = 0.0
        self.open = True
        self.num_requests = 0
        self.request_bytes = 0
        self.chunk_bytes = 0
        self.events_together = False
        """The client takes several events in one message."""
        self.outbox_bytes = 0
        self._transport = transport
        self._route = route
        self._on_blocked = on_blocked
        self._on_lost = on_lost
        self._outbox: deque[tuple[bytes, bytes]] = deque()
        self._events: list[Event] = []
        self._events_bytes = 0

    @property
    def key(self) -> tuple[str, bytes]:
        return self._transport.endpoint, self._route

    @property
    def blocked(self) -> bool:
        """True while the client does not take what is meant for it."""
        return bool(self._outbox)

    def reply(self, frames: tuple[bytes, bytes], limit_bytes: int) -> None:
        """A client that asks and never reads is dropped before its answers fill the memory."""
        if self.outbox_bytes > limit_bytes:
            self._lose("it does not read its answers")
        self._post(frames)

    def notice(self, message: Reply) -> None:
        self._post(encode(message, NOTICE))

    def event(self, event: Event) -> None:
        """Those of one turn of the loop travel together, where the client takes that."""
        if not self.events_together:
            self.notice(event)
            return
        num_bytes = _EVENT_BYTES + len(event.instance) + len(event.name) + len(event.data)
        if self._events_bytes + num_bytes > self.chunk_bytes:
            self._post_events()
        if not self._events:
            asyncio.get_running_loop().call_soon(self._post_events)
        self._events.append(event)
        self._events_bytes += num_bytes

    def flush(self) -> None:
        """Sends what waits, as far as the client takes it."""
        while self._outbox and self._send(self._outbox[0]):
            frames = self._outbox.popleft()
            self.outbox_bytes -= len(frames[1])

    def close(self) -> None:
        """Nothing is sent after this."""
        self.open = False
        self._events.clear()
        self._outbox.clear()
        self.outbox_bytes = 0

    def _post_events(self) -> None:
        events, self._events, self._events_bytes = self._events, [], 0
        if events:
            self._post(encode(Events(items=events) if len(events) > 1 else events[0], NOTICE))

    def _post(self, frames: tuple[bytes, bytes]) -> None:
        if not self.open:
            return
        self._post_events()
        if self._outbox or not self._send(frames):
            if self.open:
                self._outbox.append(frames)
                self.outbox_bytes += len(frames[1])

    def _send(self, frames: tuple[bytes, bytes]) -> bool:
        if not self.open:
            return False
        sent = self._transport.send(self._route, frames)
        if sent is Sent.GONE:
            self._lose("its connection is gone")
        elif sent is Sent.FULL:
            self._on_blocked(self)
        return sent is Sent.OK

    def _lose(self, reason: str) -> None:
        if self.open:
            self.close()
            _log.info("client lost", client=self.peer.address, reason=reason)
            self._on_lost(self, reason)
